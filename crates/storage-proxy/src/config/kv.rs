//! KV, as a cache: whatever goes wrong with it is a miss.

use worker::{Env, kv::KvStore};

use super::KV;

const EXPIRES_AFTER_S: u64 = 3_600;
const CACHE_TTL_S: u64 = 60;

pub async fn get(env: &Env, key: &str) -> Option<Vec<u8>> {
    let kv: KvStore = env.kv(KV).ok()?;
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
    if let Ok(put) = env.kv(KV).and_then(|kv| Ok(kv.put_bytes(key, value)?)) {
        #[cfg(feature = "test-routes")]
        crate::meter::kv_write();
        let _ = put.expiration_ttl(expires_after_s).execute().await;
    }
}
