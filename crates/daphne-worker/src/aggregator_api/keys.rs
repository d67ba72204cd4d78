//! HPKE keys, for control planes: as `/admin/hpke_keys` has them, less what needs an operator's judgement.

use daphne_core::{
    aggregator_api::{HpkeConfigView, HpkeState, NewHpkeConfig, PatchHpkeConfig},
    error::Error,
    ids::HpkeConfigId,
    store::config_store::keys::{KeyChange, KeyRefusal},
};
use storage_proxy::config::keys::ChangedKey;
use worker::{Request, Response};

use super::{bad, conflict, empty, not_found, read_json, respond};
use crate::app::RequestContext;

/// Pending keys beyond which no other is made here. The request has no name for what it makes, so each one whose answer is
/// lost leaves a key behind, and there are 256 ids.
const PENDING_MAX: usize = 8;

fn key_id(text: &str) -> Result<HpkeConfigId, Error> {
    text.parse().map(HpkeConfigId).map_err(|_| bad("the key id is a number from 0 to 255"))
}

fn refused(why: KeyRefusal) -> Error {
    match why {
        KeyRefusal::NoSuchKey | KeyRefusal::IsDestroyed => not_found(),
        why => conflict(why.to_string()),
    }
}

async fn all(context: &RequestContext<'_>) -> Result<Vec<HpkeConfigView>, Error> {
    let keys = context.config.hpke_keys(context.env).await?;
    Ok(keys.into_iter().filter_map(HpkeConfigView::of).collect())
}

async fn one(context: &RequestContext<'_>, id: HpkeConfigId) -> Result<HpkeConfigView, Error> {
    all(context).await?.into_iter().find(|key| key.id() == id).ok_or_else(not_found)
}

pub async fn list(context: &RequestContext<'_>) -> Result<Response, Error> {
    respond(&all(context).await?, 200)
}

pub async fn show(context: &RequestContext<'_>, id: &str) -> Result<Response, Error> {
    respond(&one(context, key_id(id)?).await?, 200)
}

pub async fn create(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    let new: NewHpkeConfig = read_json(request).await?;
    let kem = new.kem().map_err(|e| bad(e.to_string()))?;
    let pending = all(context).await?.iter().filter(|k| k.state() == HpkeState::Pending).count();
    if pending >= PENDING_MAX {
        return Err(conflict(format!(
            "there are {pending} pending keys already; publish one, or expire those that nobody will use"
        )));
    }
    let (env, now) = (context.env, context.now);
    match context.config.make_hpke_key(env, (None, kem), false, false, now).await? {
        ChangedKey::Key(key, _) => respond(&HpkeConfigView::of(key).ok_or_else(not_found)?, 201),
        ChangedKey::Refused(why) => Err(refused(why)),
    }
}

pub async fn change(
    context: &RequestContext<'_>,
    request: &mut Request,
    id: &str,
) -> Result<Response, Error> {
    let id = key_id(id)?;
    let patch: PatchHpkeConfig = read_json(request).await?;
    let state = one(context, id).await?.state();
    let change = patch.change(state).map_err(|e| conflict(e.to_string()))?;
    if let Some(to) = change
        && let ChangedKey::Refused(why) =
            context.config.change_hpke_key(context.env, id, to, false, context.now).await?
    {
        return Err(refused(why));
    }
    empty(200)
}

/// Destroys a key that nothing needs. One that reports may be sealed to is not destroyed here, but by an operator.
pub async fn delete(context: &RequestContext<'_>, id: &str) -> Result<Response, Error> {
    let (id, to) = (key_id(id)?, KeyChange::Destroy);
    match context.config.change_hpke_key(context.env, id, to, false, context.now).await? {
        ChangedKey::Key(..) | ChangedKey::Refused(KeyRefusal::NoSuchKey) => empty(204),
        ChangedKey::Refused(why) => Err(refused(why)),
    }
}
