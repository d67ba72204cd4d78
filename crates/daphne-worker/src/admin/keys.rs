//! HPKE keys.

use daphne_core::{
    b64,
    codec::Reader,
    error::{Abort, AbortKind, Error},
    hpke::{HpkeConfig, HpkeKem, HpkeKeypair},
    ids::HpkeConfigId,
    store::config_store::keys::{KeyChange, KeyRefusal, Policy},
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::json;
use storage_proxy::config::keys::ChangedKey;
use worker::{Request, Response};
use zeroize::Zeroizing;

use super::{bad, read_json};
use crate::{app::RequestContext, respond};

pub async fn list(context: &RequestContext<'_>) -> Result<Response, Error> {
    let keys = context.config.hpke_keys(context.env).await?;
    respond::json(&json!({ "keys": keys }), 200)
}

/// What an operator sends to have a key made, or to bring one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    /// Of a key to make.
    id: Option<HpkeConfigId>,
    /// Of a key to make.
    kem: Option<HpkeKem>,
    /// Of a key to import: JSON, or base64url of its encoding.
    #[serde(default, deserialize_with = "config")]
    config: Option<HpkeConfig>,
    /// Of a key to import, base64url. Secret.
    #[serde(default, deserialize_with = "secret")]
    private_key: Option<Zeroizing<Vec<u8>>>,
    #[serde(default)]
    state: FirstState,
    /// A key to import is pinned at once.
    #[serde(default)]
    pinned: bool,
    #[serde(default)]
    force: bool,
}

/// How a key begins.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FirstState {
    Pending,
    #[default]
    Active,
}

fn config<'de, D: Deserializer<'de>>(d: D) -> Result<Option<HpkeConfig>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected config to be JSON or base64url of an HpkeConfig")]
    enum Written {
        Encoded(String),
        Json(HpkeConfig),
    }
    match Written::deserialize(d)? {
        Written::Json(config) => Ok(Some(config)),
        Written::Encoded(text) => b64::decode(&text)
            .and_then(|bytes| Reader::all(&bytes, HpkeConfig::read).ok())
            .map(Some)
            .ok_or_else(|| D::Error::custom("config is no encoded HpkeConfig")),
    }
}

fn secret<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Zeroizing<Vec<u8>>>, D::Error> {
    b64::serde_b64::deserialize(d).map(|bytes| Some(Zeroizing::new(bytes)))
}

pub async fn create(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    let new: NewKey = read_json(request).await?;
    let NewKey { id, kem, config, private_key, state, pinned, force } = new;
    let (store, env, now) = (context.config, context.env, context.now);
    let active = state == FirstState::Active;
    respond_with(match (config, private_key) {
        (None, None) => {
            let kem = kem.unwrap_or(HpkeKem::X25519HkdfSha256);
            if !matches!(kem, HpkeKem::X25519HkdfSha256 | HpkeKem::P256HkdfSha256) {
                return Err(bad("kem must be X25519HkdfSha256 or P256HkdfSha256"));
            }
            if pinned {
                return Err(bad("only an imported key can be pinned at once"));
            }
            store.make_hpke_key(env, (id, kem), active, force, now).await?
        }
        (Some(config), Some(private_key)) => {
            if id.is_some() || kem.is_some() {
                return Err(bad("the config of an imported key has its id and its kem"));
            }
            if pinned && !active {
                return Err(bad("a pinned key is active"));
            }
            let keypair =
                HpkeKeypair::from_parts(config, private_key).map_err(|e| bad(e.to_string()))?;
            store.import_hpke_key(env, &keypair, (active, pinned), force, now).await?
        }
        _ => return Err(bad("a key to import has both config and private_key")),
    })
}

/// How an operator changes a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    state: Option<NextState>,
    pinned: Option<bool>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum NextState {
    Active,
    Expired,
}

pub async fn change(
    context: &RequestContext<'_>,
    request: &mut Request,
    id: &str,
) -> Result<Response, Error> {
    let id = key_id(id)?;
    let Wish { state, pinned, force } = read_json(request).await?;
    let to = match (state, pinned) {
        (Some(NextState::Active), None) => KeyChange::Activate,
        (Some(NextState::Expired), None) => KeyChange::Expire,
        (None, Some(true)) => KeyChange::Pin,
        (None, Some(false)) => KeyChange::Unpin,
        _ => return Err(bad("give one of state and pinned")),
    };
    respond_with(context.config.change_hpke_key(context.env, id, to, force, context.now).await?)
}

pub async fn destroy(
    context: &RequestContext<'_>,
    request: &Request,
    id: &str,
) -> Result<Response, Error> {
    let id = key_id(id)?;
    let url = request.url().map_err(|_| bad("the URL is malformed"))?;
    let force = match url.query() {
        None => false,
        Some("force=true") => true,
        Some(_) => return Err(bad("the query may be `force=true`")),
    };
    let to = KeyChange::Destroy;
    respond_with(context.config.change_hpke_key(context.env, id, to, force, context.now).await?)
}

/// What an operator sends to do something to all keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    #[serde(default)]
    force: bool,
}

pub async fn rotate(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    let Rotation { force } = read_json(request).await?;
    respond_with(context.config.rotate_hpke_keys(context.env, force, context.now).await?)
}

pub async fn show_policy(context: &RequestContext<'_>) -> Result<Response, Error> {
    respond::json(&context.config.hpke_policy(context.env).await?, 200)
}

/// What an operator sends to turn the schedule on or off.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPolicy {
    policy: Option<Policy>,
    #[serde(default)]
    force: bool,
}

pub async fn set_policy(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    let NewPolicy { policy, force } = read_json(request).await?;
    let (env, now) = (context.env, context.now);
    match context.config.set_hpke_policy(env, policy.as_ref(), force, now).await? {
        Ok(scheduled) => respond::json(&scheduled, 200),
        Err(why) => Err(refuse(why)),
    }
}

fn key_id(text: &str) -> Result<HpkeConfigId, Error> {
    text.parse().map(HpkeConfigId).map_err(|_| bad("the key id is a number from 0 to 255"))
}

fn respond_with(changed: ChangedKey) -> Result<Response, Error> {
    match changed {
        ChangedKey::Key(info, is_new) => respond::json(&info, if is_new { 201 } else { 200 }),
        ChangedKey::Refused(why) => Err(refuse(why)),
    }
}

fn refuse(why: KeyRefusal) -> Error {
    let kind = match why {
        KeyRefusal::NoSuchKey => AbortKind::NotFound,
        KeyRefusal::Policy(_) => AbortKind::BadRequest,
        _ => AbortKind::Conflict,
    };
    Abort::new(kind, why.to_string()).into()
}
