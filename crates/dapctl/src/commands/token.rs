//! `dapctl task token`.

use serde_json::json;

use super::task::unknown;
use crate::{
    Failure,
    cli::{Cli, TokenCommand},
    output,
};

pub(super) fn run(cli: &Cli, command: &TokenCommand) -> Result<(), Failure> {
    let admin = super::admin(cli)?;
    let names = match command {
        TokenCommand::List(task) => admin.leader_tokens(&task.task_id)?,
        TokenCommand::Add { task, token } => admin.add_leader_token(
            &task.task_id,
            token.leader_token.as_deref(),
            token.leader_token_hash.as_deref(),
        )?,
        TokenCommand::Rm { task, name } => admin.remove_leader_token(&task.task_id, name)?,
    };
    let names = names.ok_or_else(unknown)?;
    output::print(cli.output, &names.join("\n"), &json!({ "leader_tokens": names }))
}
