//! `GET …/hpke_config`: our HPKE configurations. DAP-09 §4.4.1, DAP-18 §4.4.1.

use std::cell::RefCell;

use daphne_core::{
    codec::Writer,
    error::{Abort, AbortKind, Error, Internal},
    hpke::{
        HpkeConfigList,
        signature::{self, ListSigner},
    },
    version::{DapVersion, Message},
};
use worker::{Request, Response};

use super::{DapContext, known_task, task_id};
use crate::respond;

/// Signs the list, and remembers the last signature: the list rarely changes, and signing takes a millisecond.
#[derive(Debug)]
pub struct CachingSigner {
    signer: ListSigner,
    last: RefCell<(Vec<u8>, String)>,
}

impl CachingSigner {
    /// A signer that has signed nothing yet.
    pub fn new(signer: ListSigner) -> Self {
        Self { signer, last: RefCell::default() }
    }

    fn sign(&self, list: &[u8]) -> String {
        let mut last = self.last.borrow_mut();
        if last.0 != list || last.1.is_empty() {
            *last = (list.to_vec(), self.signer.sign(list));
        }
        last.1.clone()
    }
}

/// Answers with the published configurations, in the order of [`daphne_core::store::config_store::keys::sort`]; the same
/// bytes with and without a task id, which must be known if it is given.
///
/// # Errors
/// `unrecognizedTask`, or ours if there is no key yet.
pub async fn get(context: &DapContext<'_>, request: &Request) -> Result<Response, Error> {
    if let Some(id) = task_in_query(context.version, request)? {
        known_task(context, request, &task_id(&id)?)
            .await?
            .ok_or_else(|| Abort::new(AbortKind::UnrecognizedTask, ""))?;
    }
    let keyring = context.config.keyring(context.env, context.now).await?;
    let list = HpkeConfigList(keyring.published().cloned().collect());
    if list.0.is_empty() {
        return Err(Internal::Unavailable("no HPKE key is active".to_owned()).into());
    }
    let mut w = Writer::new();
    list.write(&mut w);
    let body = w.finish().map_err(|e| Internal::Broken(e.to_string()))?;
    let signature = context.signer.map(|signer| (signature::HEADER, signer.sign(&body)));
    let response = respond::message(context.version, Message::HpkeConfigList, body)?;
    respond::public(response, signature, request)
}

/// The task id of the request, if it has one, as it was written. DAP-18 has no such parameter.
///
/// # Errors
/// The URL is malformed.
pub fn task_in_query(version: DapVersion, request: &Request) -> Result<Option<String>, Abort> {
    if !version.hpke_config_names_a_task() {
        return Ok(None);
    }
    let url = request
        .url()
        .map_err(|_| Abort::new(AbortKind::BadPath, "the request's URL is malformed"))?;
    Ok(url.query_pairs().find(|(name, _)| name == "task_id").map(|(_, id)| id.into_owned()))
}
