//! Root keys and what is sealed with them.

use daphne_core::{b64, error::Error, store::config_store::secrets::SecretsCursor};
use serde::Deserialize;
use serde_json::json;
use worker::{Request, Response};

use super::{bad, read_json};
use crate::{app::RequestContext, respond};

/// Where a page begins: what the page before called `next`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<String>,
}

pub async fn look(context: &RequestContext<'_>, request: &Request) -> Result<Response, Error> {
    let url = request.url().map_err(|_| bad("the URL is malformed"))?;
    let mut after = None;
    for (name, value) in url.query_pairs() {
        if name != "after" {
            return Err(bad("the query may hold `after`"));
        }
        after = Some(value.into_owned());
    }
    page(context, Page { after }, false).await
}

pub async fn reseal(
    context: &RequestContext<'_>,
    request: &mut Request,
) -> Result<Response, Error> {
    page(context, read_json(request).await?, true).await
}

async fn page(
    context: &RequestContext<'_>,
    Page { after }: Page,
    reseal: bool,
) -> Result<Response, Error> {
    let read = |text: String| -> Option<SecretsCursor> {
        serde_json::from_slice(&b64::decode(&text)?).ok()
    };
    let after = after
        .map(|text| read(text).ok_or_else(|| bad("after is not what a page called next")))
        .transpose()?;
    let page = context.config.secrets(context.env, after, reseal, context.now).await?;
    let next = page.next.map(|next| b64::encode(json!(next).to_string().as_bytes()));
    let root_keys = context.config.root_keys();
    respond::json(
        &json!({
            "needed": page.needed,
            "resealed": page.resealed,
            "configured": root_keys.versions().collect::<Vec<_>>(),
            "newest": root_keys.newest(),
            "next": next,
        }),
        200,
    )
}
