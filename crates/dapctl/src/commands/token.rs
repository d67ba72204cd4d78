//! `dapctl task token`, and tokens that are made to be added.

use daphne_core::b64;
use serde_json::json;

use super::task::{describe, unknown};
use crate::{
    Failure,
    cli::{Cli, NewTokenArgs, TokenArgs, TokenCommand},
    http::ClientError,
    output::{self, clean},
    task_file::{self, Saved},
};

/// Random bytes of a new token.
const TOKEN_LEN: usize = 16;

pub(super) fn run(cli: &Cli, command: &TokenCommand) -> Result<(), Failure> {
    let admin = super::admin(cli)?;
    let names = match command {
        TokenCommand::List(task) => admin.leader_tokens(&task.task_id)?,
        TokenCommand::Add { task, token } => {
            let new = NewToken::of(token)?;
            let hash = token.given.leader_token_hash.as_deref();
            let added = admin.add_leader_token(&task.task_id, new.token.as_deref(), hash);
            new.settled(added)?
        }
        TokenCommand::Rm { task, name } => admin.remove_leader_token(&task.task_id, name)?,
    };
    let names = names.ok_or_else(unknown)?;
    output::print(cli.output, &names.join("\n"), &json!({ "leader_tokens": names }))
}

/// A token that is to be added, and the file it was written to if it was made here.
pub(super) struct NewToken {
    /// The token, unless only its hash was given. Secret.
    pub(super) token: Option<String>,
    saved: Option<Saved>,
}

impl NewToken {
    /// The token that was given, or one that is made and, before anybody is told, kept in its file.
    ///
    /// # Errors
    /// [`Failure::Usage`] if there is none, or if the file exists or cannot be written.
    pub(super) fn of(args: &NewTokenArgs) -> Result<Self, Failure> {
        let TokenArgs { leader_token, leader_token_hash } = &args.given;
        let Some(path) = &args.save else {
            if leader_token.is_none() && leader_token_hash.is_none() {
                return Err(Failure::Usage(
                    "give --leader-token or --leader-token-hash, or say with --save FILE where to keep a new token"
                        .into(),
                ));
            }
            return Ok(Self { token: leader_token.clone(), saved: None });
        };
        if path.exists() {
            // There is no --force here: a token that some leader uses may be in it.
            let file = clean(&path.display().to_string());
            return Err(Failure::Usage(format!("{file} exists, and is not overwritten")));
        }
        let token = b64::encode(&task_file::random::<TOKEN_LEN>()?);
        let saved = task_file::save(path, &token, false)?;
        Ok(Self { token: Some(token), saved: Some(saved) })
    }

    /// What became of the addition; the file is taken back if certainly nothing was added.
    ///
    /// # Errors
    /// The addition's, or [`Failure::Usage`] if the file stays.
    pub(super) fn settled<T>(
        self,
        added: Result<Option<T>, ClientError>,
    ) -> Result<Option<T>, Failure> {
        let nothing_changed = match &added {
            Ok(added) => added.is_none(),
            Err(error) => error.changed_nothing(),
        };
        match self.saved {
            Some(saved) if nothing_changed => saved.undo()?,
            Some(_) => {
                return added.map_err(|error| {
                    Failure::from(error)
                        .during("the file is kept, as the token in it may have been added")
                });
            }
            None => {}
        }
        added.map_err(describe)
    }
}
