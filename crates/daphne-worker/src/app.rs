//! One isolate's application: secrets parsed, routes built and caches filled once, then every request.

use std::{cell::RefCell, panic::AssertUnwindSafe, rc::Rc};

use daphne_core::{
    aggregate::{deferred::Budget, helper::WORK_MAX},
    error::{Abort, AbortKind, Error, Internal},
    hpke::signature::ListSigner,
    ids::TaskId,
    seal::TokenHash,
    time::Time,
    version::Endpoint,
};
use futures::FutureExt;
use storage_proxy::config::{self, Config};
use worker::{Date, Env, Method, Request, Response};

use crate::{
    admin, aggregator_api,
    build_info::BuildInfo,
    credentials,
    dap::{self, DapContext, aggregate_share, aggregation_job, hpke_config::CachingSigner},
    log::{self, Outcome},
    metrics, respond,
    router::{Found, Route, Routes},
};

/// Secret with the tokens of the admin API.
pub const ADMIN_TOKENS: &str = "ADMIN_TOKENS";
/// Secret, optional, with tokens that only read metrics.
pub const METRICS_TOKENS: &str = "METRICS_TOKENS";
/// Secret, optional, with the key that signs the list of HPKE configurations.
pub const HPKE_CONFIG_SIGNING_KEY: &str = "HPKE_CONFIG_SIGNING_KEY";
/// Secret, optional, with the tokens of the aggregator API, which is not there without it.
pub const AGGREGATOR_API_TOKENS: &str = "AGGREGATOR_API_TOKENS";
/// Variable, optional: where DAP is, for control planes, if not at the origin that they ask.
pub const PUBLIC_DAP_URL: &str = "PUBLIC_DAP_URL";
/// Variable with how much of a job is done within one request, in units of work; optional.
pub const REQUEST_WORK_MAX: &str = "REQUEST_WORK_MAX";
const TOKEN_LEN_MIN: usize = 16;

/// What an isolate keeps between requests.
pub struct App {
    routes: Routes,
    secrets: Result<Secrets, String>,
}

struct Secrets {
    config: Config,
    admin_tokens: Vec<TokenHash>,
    metrics_tokens: Vec<TokenHash>,
    signer: Option<CachingSigner>,
    api: aggregator_api::Settings,
    budget: Budget,
    /// What is wrong with optional secrets. The rest works without them.
    complaint: Option<String>,
}

/// A request's surroundings.
pub struct RequestContext<'a> {
    /// Bindings.
    pub env: &'a Env,
    /// Tasks and keys.
    pub config: &'a Config,
    /// Hashes of the tokens of the admin API.
    pub admin_tokens: &'a [TokenHash],
    /// Hashes of the tokens that only read metrics.
    pub metrics_tokens: &'a [TokenHash],
    /// Signs the list of HPKE configurations, if that is configured.
    pub signer: Option<&'a CachingSigner>,
    /// How the aggregator API is set up.
    pub api: &'a aggregator_api::Settings,
    /// How much of a job is done within one request.
    pub budget: Budget,
    /// The clock, read once per request.
    pub now: Time,
}

thread_local! {
    static APP: RefCell<Option<Rc<App>>> = const { RefCell::new(None) };
}

impl App {
    fn of_this_isolate(env: &Env) -> Rc<Self> {
        APP.with_borrow_mut(|slot| {
            // Without secrets nothing is kept, so that setting them takes effect.
            let app = slot.take_if(|app| app.secrets.is_ok()).unwrap_or_else(|| {
                Rc::new(Self { routes: Routes::new(), secrets: Secrets::read(env) })
            });
            *slot = Some(app.clone());
            app
        })
    }
}

impl Secrets {
    /// Reads the secrets; the error says which one is missing or malformed, for whoever deploys.
    fn read(env: &Env) -> Result<Self, String> {
        let secret = |name: &str| {
            env.secret(name)
                .map(|s| s.to_string())
                .map_err(|_| format!("the secret {name} is not set"))
        };
        let root_keys = config::root_keys(env)?;
        let admin_tokens = parse_tokens(ADMIN_TOKENS, &secret(ADMIN_TOKENS)?)?;
        let mut complaints = Vec::new();
        let mut complain = |what: String| complaints.push(what);
        let signer = env.secret(HPKE_CONFIG_SIGNING_KEY).ok().and_then(|pem| {
            ListSigner::from_pem(&pem.to_string())
                .map_err(|e| complain(format!("{HPKE_CONFIG_SIGNING_KEY}: {e}; nothing is signed")))
                .map(CachingSigner::new)
                .ok()
        });
        let mut lesser_tokens = |name: &str, without: &str| {
            let tokens = env.secret(name).ok()?;
            parse_tokens(name, &tokens.to_string())
                .and_then(|tokens| check_are_others(name, tokens, &admin_tokens))
                .map_err(|e| complain(format!("{e}; {without}")))
                .ok()
        };
        let metrics_tokens = lesser_tokens(METRICS_TOKENS, "only operators read metrics");
        let api_tokens = lesser_tokens(AGGREGATOR_API_TOKENS, "there is no aggregator API");
        let dap_url = env.var(PUBLIC_DAP_URL).ok().and_then(|url| {
            aggregator_api::parse_dap_url(&url.to_string())
                .map_err(|e| complain(format!("{PUBLIC_DAP_URL}: {e}; it is ignored")))
                .ok()
        });
        let budget = env.var(REQUEST_WORK_MAX).ok().and_then(|text| {
            let budget = text.to_string().trim().parse().ok().and_then(Budget::new);
            if budget.is_none() {
                complain(format!("{REQUEST_WORK_MAX} must be 1 to {WORK_MAX}; it is ignored"));
            }
            budget
        });
        Ok(Self {
            config: Config::new(root_keys),
            admin_tokens,
            metrics_tokens: metrics_tokens.unwrap_or_default(),
            signer,
            api: aggregator_api::Settings { tokens: api_tokens.unwrap_or_default(), dap_url },
            budget: budget.unwrap_or(Budget::DEFAULT),
            complaint: (!complaints.is_empty()).then(|| complaints.join("; ")),
        })
    }
}

/// Hashes of the tokens in a secret.
fn parse_tokens(name: &str, text: &str) -> Result<Vec<TokenHash>, String> {
    let tokens: Vec<&str> = text.split(',').map(str::trim).collect();
    if tokens.iter().any(|t| t.len() < TOKEN_LEN_MIN) {
        return Err(format!(
            "{name} must be tokens of at least {TOKEN_LEN_MIN} characters, separated by commas"
        ));
    }
    Ok(tokens.into_iter().map(TokenHash::of).collect())
}

/// Whoever may do less must not hold an operator's token: where it is kept is guarded less.
fn check_are_others(
    name: &str,
    tokens: Vec<TokenHash>,
    admin_tokens: &[TokenHash],
) -> Result<Vec<TokenHash>, String> {
    if tokens.iter().any(|token| admin_tokens.contains(token)) {
        return Err(format!("{name} has a token that is in {ADMIN_TOKENS} too"));
    }
    Ok(tokens)
}

/// Handles a request of the Worker.
pub async fn handle(request: Request, env: Env) -> worker::Result<Response> {
    respond::guarded(answer(request, env).await?)
}

async fn answer(request: Request, env: Env) -> worker::Result<Response> {
    let app = App::of_this_isolate(&env);
    let Some(found) = app.routes.find(&request.path()) else {
        let abort = Abort::new(AbortKind::NotFound, "");
        return respond::error(&abort.into(), None, None);
    };
    let route = found.route;
    let mut outcome = Outcome::new(route, &request);
    let version = route.version();
    let task_id: Option<TaskId> = match route {
        Route::Dap(version, Endpoint::HpkeConfig) => {
            dap::hpke_config::task_in_query(version, &request).ok().flatten()
        }
        _ => Some(found.task.clone()),
    }
    .and_then(|id| id.parse().ok());
    // A panic fails its own request and no other: the build unwinds.
    let result = AssertUnwindSafe(dispatch(&app, request, &env, found, &mut outcome))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(Internal::Broken("a handler panicked".to_owned()).into()));
    let response = match result {
        Ok(response) => response,
        Err(error) => {
            outcome.error(&error);
            if let Some((task, refusal)) = outcome.uncounted_refusal(&error) {
                metrics::count_refusal(&env, &task, refusal).await;
            }
            let mut response = match route {
                Route::Api(route) => aggregator_api::refuse(&error, route)?,
                _ => respond::error(&error, version, task_id.as_ref())?,
            };
            if matches!(route, Route::Dap(_, Endpoint::HpkeConfig)) {
                respond::vary_on_origin(&mut response)?;
            }
            if matches!(&error, Error::Abort(a) if a.kind == AbortKind::MethodNotAllowed) {
                response.headers_mut().set("Allow", route.allow())?;
            }
            response
        }
    };
    outcome.status(response.status_code());
    log::write(&outcome);
    metrics::data_point::write(&env, &outcome);
    Ok(response)
}

async fn dispatch(
    app: &App,
    mut request: Request,
    env: &Env,
    found: Found,
    outcome: &mut Outcome,
) -> Result<Response, Error> {
    // As it is spelt: `Request::method` takes what it does not know for a GET. The aggregator API looks at tokens first.
    let is_open = !matches!(found.route, Route::Api(_));
    if is_open && !found.route.allows(&request.inner().method()) {
        return Err(Abort::new(AbortKind::MethodNotAllowed, "").into());
    }
    credentials::check_https(&request)?;
    if found.route == Route::Health {
        let wrong = match &app.secrets {
            Ok(secrets) => secrets.complaint.as_ref(),
            Err(wrong) => Some(wrong),
        };
        return respond::health(wrong);
    }
    if found.route == Route::Version {
        return respond::json(&BuildInfo::read(), 200);
    }
    let secrets = app
        .secrets
        .as_ref()
        .map_err(|missing| Internal::Unavailable(format!("not configured: {missing}")))?;
    let context = RequestContext {
        env,
        config: &secrets.config,
        admin_tokens: &secrets.admin_tokens,
        metrics_tokens: &secrets.metrics_tokens,
        signer: secrets.signer.as_ref(),
        api: &secrets.api,
        budget: secrets.budget,
        now: Time::from_seconds(Date::now().as_millis() / 1_000),
    };
    match (found.route, request.method()) {
        (Route::Metrics, _) => metrics::scrape::get(&context, &request).await,
        (Route::Dap(version, endpoint), method) => {
            let context = DapContext { context, version };
            match (endpoint, method) {
                (Endpoint::HpkeConfig, Method::Options) => respond::preflight(&request),
                (Endpoint::HpkeConfig, _) => dap::hpke_config::get(&context, &request).await,
                (Endpoint::NamedAggregationJob, Method::Put) => {
                    aggregation_job::put(&context, &mut request, &found, outcome).await
                }
                (Endpoint::AggregationJobs, _) => {
                    aggregation_job::create(&context, &mut request, &found, outcome).await
                }
                (Endpoint::NamedAggregationJob | Endpoint::AggregationJob, Method::Post) => {
                    aggregation_job::post(&context, &mut request, &found, outcome).await
                }
                (Endpoint::NamedAggregationJob | Endpoint::AggregationJob, Method::Delete) => {
                    aggregation_job::delete(&context, &request, &found, outcome).await
                }
                (Endpoint::NamedAggregationJob | Endpoint::AggregationJob, _) => {
                    aggregation_job::get(&context, &request, &found, outcome).await
                }
                (Endpoint::AggregateShareRequests, _) => {
                    aggregate_share::post(&context, &mut request, &found, outcome).await
                }
                (Endpoint::AggregateShares, _) => {
                    aggregate_share::create(&context, &mut request, &found, outcome).await
                }
                (Endpoint::AggregateShare, Method::Delete) => {
                    aggregate_share::delete(&context, &request, &found, outcome).await
                }
                (Endpoint::AggregateShare, _) => {
                    aggregate_share::get(&context, &request, &found, outcome).await
                }
            }
        }
        (
            Route::AdminTasks
            | Route::AdminTask
            | Route::AdminTaskStatus
            | Route::AdminLeaderTokens
            | Route::AdminSecrets
            | Route::AdminReseal
            | Route::AdminHpkeKeys
            | Route::AdminHpkeKey
            | Route::AdminHpkeRotation
            | Route::AdminHpkePolicy
            | Route::AdminPeers,
            _,
        ) => admin::handle(&context, &mut request, &found).await,
        (Route::Api(route), _) => {
            aggregator_api::handle(&context, &mut request, &found, route).await
        }
        #[cfg(feature = "test-routes")]
        (Route::Test, _) => crate::test_routes::handle(&context, &mut request, &found.job).await,
        (Route::Health | Route::Version, _) => respond::health(None),
    }
}
