//! Paths to routes. The table is built once per isolate.

use daphne_core::version::{DapVersion, Endpoint};
use matchit::Router;

/// What lives at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Something of DAP, of a version that the path names.
    Dap(DapVersion, Endpoint),
    /// Health of the deployment.
    Health,
    /// Which code is deployed.
    Version,
    /// Metrics of all tasks.
    Metrics,
    /// All tasks.
    AdminTasks,
    /// One task.
    AdminTask,
    /// How one task is doing.
    AdminTaskStatus,
    /// Tokens of a task's leader.
    AdminLeaderTokens,
    /// What is sealed with which root key.
    AdminSecrets,
    /// Seals it with the newest.
    AdminReseal,
    /// All HPKE keys.
    AdminHpkeKeys,
    /// One HPKE key.
    AdminHpkeKey,
    /// All peers that may bring tasks along.
    AdminPeers,
    /// Rotations of the HPKE keys.
    AdminHpkeRotation,
    /// The schedule by which HPKE keys come and go.
    AdminHpkePolicy,
    /// Something of the aggregator API.
    Api(ApiRoute),
    /// Whatever tests need.
    #[cfg(feature = "test-routes")]
    Test,
}

/// What lives at a path of the aggregator API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRoute {
    /// What this aggregator is.
    Config,
    /// Ids of all tasks.
    TaskIds,
    /// All tasks.
    Tasks,
    /// One task.
    Task,
    /// What became of a task's uploads: nothing, at a Helper.
    UploadMetrics,
    /// What became of a task's reports.
    AggregationMetrics,
    /// All HPKE keys.
    HpkeConfigs,
    /// One HPKE key.
    HpkeConfig,
    /// All peers that may bring tasks along.
    Peers,
    /// Any other path: strangers are not told which there are.
    Nothing,
}

/// A route, with the identifiers in its path as they were written.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The route.
    pub route: Route,
    /// `{task}` in the path.
    pub task: String,
    /// `{job}` in the path: the id of an aggregation job or an aggregate share, or the last segment of a test route.
    pub job: String,
    /// `{key}` in the path.
    pub key: String,
}

/// The table.
pub struct Routes(Router<Route>);

impl Routes {
    /// Builds the table.
    ///
    /// # Panics
    /// If two of the paths below conflict, which a test rules out.
    pub fn new() -> Self {
        let mut router = Router::new();
        // Unwrap safety: all paths are constants.
        #[allow(clippy::expect_used)]
        let mut insert =
            |path: &str, route| router.insert(path, route).expect("the paths do not conflict");
        for version in DapVersion::ALL {
            for (path, endpoint) in version.resources() {
                let route = Route::Dap(version, *endpoint);
                insert(&format!("/{}{path}", version.path_prefix()), route);
            }
            insert(&format!("/{}/version", version.path_prefix()), Route::Version);
        }
        for (path, route) in [
            ("/healthz", Route::Health),
            ("/version", Route::Version),
            ("/metrics", Route::Metrics),
            ("/admin/tasks", Route::AdminTasks),
            ("/admin/tasks/{task}", Route::AdminTask),
            ("/admin/tasks/{task}/status", Route::AdminTaskStatus),
            ("/admin/tasks/{task}/leader_tokens", Route::AdminLeaderTokens),
            ("/admin/secrets", Route::AdminSecrets),
            ("/admin/secrets/reseal", Route::AdminReseal),
            ("/admin/hpke_keys", Route::AdminHpkeKeys),
            ("/admin/hpke_keys/{key}", Route::AdminHpkeKey),
            ("/admin/taskprov_peers", Route::AdminPeers),
            ("/admin/hpke_rotation", Route::AdminHpkeRotation),
            ("/admin/hpke_policy", Route::AdminHpkePolicy),
            ("/aggregator-api", Route::Api(ApiRoute::Config)),
            ("/aggregator-api/", Route::Api(ApiRoute::Config)),
            ("/aggregator-api/task_ids", Route::Api(ApiRoute::TaskIds)),
            ("/aggregator-api/tasks", Route::Api(ApiRoute::Tasks)),
            ("/aggregator-api/tasks/{task}", Route::Api(ApiRoute::Task)),
            ("/aggregator-api/tasks/{task}/metrics/uploads", Route::Api(ApiRoute::UploadMetrics)),
            (
                "/aggregator-api/tasks/{task}/metrics/aggregations",
                Route::Api(ApiRoute::AggregationMetrics),
            ),
            ("/aggregator-api/hpke_configs", Route::Api(ApiRoute::HpkeConfigs)),
            ("/aggregator-api/hpke_configs/{key}", Route::Api(ApiRoute::HpkeConfig)),
            ("/aggregator-api/taskprov/peer_aggregators", Route::Api(ApiRoute::Peers)),
            ("/aggregator-api/{*rest}", Route::Api(ApiRoute::Nothing)),
            #[cfg(feature = "test-routes")]
            ("/internal/test/{job}", Route::Test),
        ] {
            insert(path, route);
        }
        Self(router)
    }

    /// The route of a path, or `None`.
    pub fn find(&self, path: &str) -> Option<Found> {
        let found = self.0.at(path).ok()?;
        let param = |name| found.params.get(name).unwrap_or_default().to_owned();
        Some(Found {
            route: *found.value,
            task: param("task"),
            job: param("job"),
            key: param("key"),
        })
    }
}

impl Route {
    /// The version of DAP whose words its answers use.
    pub const fn version(self) -> Option<DapVersion> {
        match self {
            Self::Dap(version, _) => Some(version),
            _ => None,
        }
    }

    /// The methods of the resource, as an `Allow` header lists them.
    pub const fn allow(self) -> &'static str {
        match self {
            Self::Dap(_, endpoint) => match endpoint {
                Endpoint::HpkeConfig => "GET, HEAD, OPTIONS",
                Endpoint::NamedAggregationJob => "PUT, POST, DELETE",
                Endpoint::AggregationJob => "GET, HEAD, POST, DELETE",
                Endpoint::AggregateShare => "GET, HEAD, DELETE",
                Endpoint::AggregationJobs
                | Endpoint::AggregateShareRequests
                | Endpoint::AggregateShares => "POST",
            },
            Self::Health | Self::Version | Self::Metrics => "GET, HEAD",
            Self::AdminTasks | Self::AdminHpkeKeys => "GET, HEAD, POST",
            Self::AdminPeers => "GET, HEAD, POST, PATCH, DELETE",
            Self::AdminTask => "GET, HEAD, PATCH, DELETE",
            Self::AdminHpkeKey => "PATCH, DELETE",
            Self::AdminHpkeRotation | Self::AdminReseal => "POST",
            Self::AdminLeaderTokens => "GET, HEAD, POST, DELETE",
            Self::AdminHpkePolicy => "GET, HEAD, PUT",
            Self::AdminTaskStatus | Self::AdminSecrets => "GET, HEAD",
            Self::Api(route) => route.allow(),
            #[cfg(feature = "test-routes")]
            Self::Test => "GET, POST",
        }
    }

    /// Whether the resource has this method, as the request spells it.
    pub fn allows(self, method: &str) -> bool {
        self.allow().split(", ").any(|m| m == method)
    }

    /// Name in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dap(_, endpoint) => match endpoint {
                Endpoint::HpkeConfig => "hpke_config",
                Endpoint::NamedAggregationJob
                | Endpoint::AggregationJobs
                | Endpoint::AggregationJob => "aggregation_job",
                Endpoint::AggregateShareRequests
                | Endpoint::AggregateShares
                | Endpoint::AggregateShare => "aggregate_shares",
            },
            Self::Health => "healthz",
            Self::Version => "version",
            Self::Metrics => "metrics",
            Self::AdminTasks => "admin_tasks",
            Self::AdminTask => "admin_task",
            Self::AdminTaskStatus => "admin_task_status",
            Self::AdminLeaderTokens => "admin_leader_tokens",
            Self::AdminSecrets => "admin_secrets",
            Self::AdminReseal => "admin_reseal",
            Self::AdminHpkeKeys => "admin_hpke_keys",
            Self::AdminHpkeKey => "admin_hpke_key",
            Self::AdminPeers => "admin_taskprov_peers",
            Self::AdminHpkeRotation => "admin_hpke_rotation",
            Self::AdminHpkePolicy => "admin_hpke_policy",
            Self::Api(route) => route.label(),
            #[cfg(feature = "test-routes")]
            Self::Test => "test",
        }
    }
}

impl ApiRoute {
    /// As [`Route::allow`].
    pub const fn allow(self) -> &'static str {
        match self {
            Self::Config | Self::TaskIds | Self::UploadMetrics | Self::AggregationMetrics => {
                "GET, HEAD"
            }
            Self::Tasks => "POST",
            Self::Task => "GET, HEAD, PATCH, DELETE",
            Self::HpkeConfigs => "GET, HEAD, PUT",
            Self::HpkeConfig => "GET, HEAD, PATCH, DELETE",
            Self::Peers => "GET, HEAD, POST, DELETE",
            Self::Nothing => "",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Config => "api_config",
            Self::TaskIds => "api_task_ids",
            Self::Tasks => "api_tasks",
            Self::Task => "api_task",
            Self::UploadMetrics => "api_upload_metrics",
            Self::AggregationMetrics => "api_aggregation_metrics",
            Self::HpkeConfigs => "api_hpke_configs",
            Self::HpkeConfig => "api_hpke_config",
            Self::Peers => "api_peers",
            Self::Nothing => "api_nothing",
        }
    }
}
