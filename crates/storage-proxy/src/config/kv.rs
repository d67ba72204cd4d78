//! KV, as a cache: whatever goes wrong with it is a miss.

use worker::{
    Env,
    kv::{KvError, KvStore},
};

use super::KV;

const EXPIRES_AFTER_S: u64 = 3_600;
const CACHE_TTL_S: u64 = 60;

pub async fn get(env: &Env, key: &str) -> Option<Vec<u8>> {
    let kv: KvStore = env.kv(KV).ok()?;
    #[cfg(feature = "test-routes")]
    crate::meter::kv_read();
    kv.get(key).cache_ttl(CACHE_TTL_S).bytes().await.ok().flatten()
}

pub async fn delete(env: &Env, key: &str) {
    if let Ok(kv) = env.kv(KV) {
        #[cfg(feature = "test-routes")]
        crate::meter::kv_write();
        // Entries expire by themselves, should this fail.
        let _ = kv.delete(key).await;
    }
}

pub async fn put(env: &Env, key: &str, value: &[u8]) {
    put_for(env, key, value, EXPIRES_AFTER_S).await;
}

pub async fn put_for(env: &Env, key: &str, value: &[u8], expires_after_s: u64) {
    let _ = write(env, key, value, expires_after_s).await;
}

/// As [`put`], and says whether it was done: KV takes one write of an entry a second.
pub async fn try_put(env: &Env, key: &str, value: &[u8]) -> Result<(), KvError> {
    write(env, key, value, EXPIRES_AFTER_S).await
}

async fn write(env: &Env, key: &str, value: &[u8], expires_after_s: u64) -> Result<(), KvError> {
    let kv = env.kv(KV).map_err(|_| KvError::InvalidKvStore(KV.to_owned()))?;
    let put = kv.put_bytes(key, value)?;
    #[cfg(feature = "test-routes")]
    crate::meter::kv_write();
    put.expiration_ttl(expires_after_s).execute().await
}
