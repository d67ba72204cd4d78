//! Tasks that a leader brings along in a header: taskprov-07 §4, taskprov-04 §3.
//!
//! A request for a task that we know is served as any other, whatever became of its peer's policy or its expiration: who
//! opted in does not opt out. Its header is only checked. A task that we do not know is created once its leader, who must
//! be a peer, is authenticated; nothing is written before.

use std::rc::Rc;

use daphne_core::{
    error::{Abort, AbortKind, Error, Internal},
    ids::TaskId,
    task::Task,
    taskprov,
};
use storage_proxy::config::peers::LeaderCheck;
use worker::Request;

use super::DapContext;
use crate::{app::RequestContext, credentials, limits, log::Outcome};

/// The parameters in the request's header, as they are encoded.
///
/// # Errors
/// [`daphne_core::version::DapVersion::taskprov_parameters`]'s.
fn parameters(context: &DapContext<'_>, request: &Request) -> Result<Option<Vec<u8>>, Abort> {
    match request.headers().get(taskprov::HEADER).ok().flatten() {
        Some(text) => context.version.taskprov_parameters(&text),
        None => Ok(None),
    }
}

/// Checks that the request comes from the task's leader: with a token of the task, or of the peer that brought it.
///
/// # Errors
/// [`AbortKind::UnauthorizedRequest`], or ours.
pub async fn check_leader(
    context: &RequestContext<'_>,
    request: &Request,
    task: &Task,
) -> Result<(), Error> {
    let Some(origin) = &task.parameters.taskprov else {
        return Ok(credentials::check_leader(request, task)?);
    };
    let token = credentials::dap_token(request);
    let leader = &origin.leader_url;
    match context.config.check_leader(context.env, leader, token.as_deref(), context.now).await? {
        LeaderCheck::Leader(_) => Ok(()),
        LeaderCheck::Unauthorized | LeaderCheck::UnknownPeer => {
            Err(credentials::unauthorized().into())
        }
    }
}

/// Checks the header of a request for a task that we know, if it has one.
///
/// # Errors
/// The leader's: `invalidMessage` or `unrecognizedTask`, as [`daphne_core::version::DapVersion::taskprov_task`].
pub fn check_header(context: &DapContext<'_>, request: &Request, id: &TaskId) -> Result<(), Abort> {
    parameters(context, request)?
        .map_or(Ok(()), |bytes| context.version.taskprov_task(&bytes, id).map(|_| ()))
}

/// Takes part in a task that we do not know, which the request's header describes.
///
/// A task that an operator deleted, or that ended, is not brought back: `unrecognizedTask`, as without the header.
///
/// # Errors
/// The leader's, in this order: `unrecognizedTask` without a header; [`daphne_core::version::DapVersion::taskprov_task`]; `invalidTask` if the
/// task's leader is no peer; `unauthorizedRequest`; [`taskprov::Advertised::opt_in`]. Or ours.
pub async fn opt_in(
    context: &DapContext<'_>,
    request: &Request,
    id: &TaskId,
    outcome: &mut Outcome,
) -> Result<Rc<Task>, Error> {
    let unrecognized = || Abort::new(AbortKind::UnrecognizedTask, "");
    let bytes = parameters(context, request)?.ok_or_else(unrecognized)?;
    let advertised = context.version.taskprov_task(&bytes, id)?.ok_or_else(unrecognized)?;
    let leader = advertised.leader_url();
    let token = credentials::dap_token(request);
    let RequestContext { env, config, now, .. } = context.context;
    let peer = match config.check_leader_afresh(env, leader, token.as_deref(), now).await? {
        LeaderCheck::Leader(peer) => peer,
        LeaderCheck::Unauthorized => return Err(credentials::unauthorized().into()),
        LeaderCheck::UnknownPeer => {
            let abort = Abort::new(AbortKind::InvalidTask, "the task's leader is no peer of ours");
            return Err(abort.into());
        }
    };
    limits::peer(env, leader).await?;
    let root_keys = config.root_keys();
    let peer = peer.open(root_keys).map_err(|e| Internal::Broken(format!("a stored peer: {e}")))?;
    let task = advertised.opt_in(*id, &peer, now, root_keys.newest())?;
    let task = config.opt_in(env, task, now).await?;
    let task =
        task.filter(|task| task.parameters.version == context.version).ok_or_else(unrecognized)?;
    let is_of_this_peer = task.parameters.taskprov.as_ref().is_some_and(|o| o.leader_url == leader);
    if !is_of_this_peer {
        // An operator created it with this id a moment ago, for a leader that presents its own tokens.
        check_leader(context, request, &task).await?;
        return Ok(task);
    }
    outcome.opted_in();
    Ok(task)
}
