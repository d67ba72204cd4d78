//! Randomness from the platform.

/// `N` random bytes.
///
/// # Panics
/// If the platform has no entropy. It always has while a request is handled; in global scope nothing calls this.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    // Unwrap safety: crypto.getRandomValues fails only in global scope, or above 64 KiB.
    #[allow(clippy::expect_used)]
    getrandom::fill(&mut out).expect("the platform has randomness");
    out
}

/// A random number in `[0, end)`, to spread what would otherwise come at once; 0 if `end` is 0.
pub fn below(end: u64) -> u64 {
    u64::from_le_bytes(bytes()) % end.max(1)
}
