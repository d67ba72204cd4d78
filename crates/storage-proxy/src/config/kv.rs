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
        // Entries expire by themselves, should this fail.
        let _ = kv.delete(key).await;
    }
}

pub async fn put(env: &Env, key: &str, value: &[u8]) {
    if let Ok(put) = env.kv(KV).and_then(|kv| Ok(kv.put_bytes(key, value)?)) {
        let _ = put.expiration_ttl(EXPIRES_AFTER_S).execute().await;
    }
}
