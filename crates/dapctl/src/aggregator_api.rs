//! What a control plane asks of a deployment's aggregator API before it pairs with it.

use daphne_core::aggregator_api::MEDIA_TYPE;
use serde::Deserialize;
use ureq::http::Method;
use url::Url;

use crate::{
    Failure,
    http::{Credential, Http, Request},
};

/// Where the API is below a deployment's URL, without a slash at its end, as control planes are told.
const API_PATH: &str = "aggregator-api";

/// What is read of the API's configuration.
#[derive(Debug, Deserialize)]
pub struct ApiConfig {
    /// What its tasks speak.
    pub protocol: String,
    /// Where DAP is.
    pub dap_url: String,
    /// Which role its tasks can give it.
    pub role: String,
    /// Names.
    pub vdafs: Vec<String>,
    /// Names.
    pub query_types: Vec<String>,
    /// Names; none if absent.
    #[serde(default)]
    pub features: Vec<String>,
    /// Who made it.
    #[serde(default)]
    pub software_name: String,
    /// Its version.
    #[serde(default)]
    pub software_version: String,
}

/// What came of asking.
#[derive(Debug)]
pub enum Asked {
    /// The API of a DAP-09 Helper.
    Config(ApiConfig),
    /// The token is none of the deployment's.
    WrongToken,
    /// There is no API.
    Nothing,
}

/// A deployment's aggregator API. Nothing is retried.
#[derive(Debug)]
pub struct AggregatorApi {
    http: Http,
    url: Url,
}

impl AggregatorApi {
    /// That of the deployment at `deployment`, such as `https://helper.example`.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the URL or the token is unusable.
    pub fn new(deployment: &str, token: &str) -> Result<Self, Failure> {
        let http = Http::new(deployment, Credential::Bearer(token))?.accepting(MEDIA_TYPE);
        let url = http
            .base()
            .join(API_PATH)
            .map_err(|_| Failure::Usage("the deployment's URL is malformed".into()))?;
        Ok(Self { http, url })
    }

    /// The API's URL, as a control plane is given it.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Asks for the configuration as control planes do: without a slash at the end of the path, and without a content type.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] if there is no answer, [`Failure::Wrong`] for one that is no DAP-09 Helper's.
    pub fn ask(&self) -> Result<Asked, Failure> {
        let answer =
            self.http.send(&Request { method: Method::GET, path: API_PATH, content: None })?;
        match answer.status {
            401 => return Ok(Asked::WrongToken),
            404 => return Ok(Asked::Nothing),
            _ => {}
        }
        let wrong = |why: &str| Err(Failure::Wrong(format!("{}: {why}", self.url)));
        let answer = answer.expect(&[200], Some(MEDIA_TYPE))?;
        let Ok(config) = serde_json::from_slice::<ApiConfig>(&answer.body) else {
            return wrong("the answer is not understood");
        };
        if config.protocol != "DAP-09" || !matches!(config.role.as_str(), "Helper" | "Either") {
            return wrong("it is no DAP-09 Helper");
        }
        Ok(Asked::Config(config))
    }
}
