//! Root keys and what is sealed with them.

use daphne_core::{
    error::Internal,
    store::config_store::{
        ConfigRequest, ConfigResponse,
        secrets::{SecretsCursor, SecretsPage, SecretsRequest},
    },
    time::Time,
};
use worker::Env;

use super::{Config, ask, unexpected};

impl Config {
    /// A page of what is sealed with which root key; with `reseal` all in it is sealed with the newest first.
    ///
    /// # Errors
    /// Ours: the same page may be asked for again.
    pub async fn secrets(
        &self,
        env: &Env,
        after: Option<SecretsCursor>,
        reseal: bool,
        now: Time,
    ) -> Result<SecretsPage, Internal> {
        let is_first = after.is_none();
        let request = ConfigRequest::Secrets(SecretsRequest { after, reseal });
        match ask(env, &request).await? {
            ConfigResponse::Secrets(page) => {
                // Copies of tasks under the old root key expire, or do not open and are replaced. Keys are on the first page.
                if is_first && page.resealed > 0 {
                    let _ = self.refresh_keyring(env, now).await;
                }
                Ok(page)
            }
            other => Err(unexpected(&other)),
        }
    }
}
