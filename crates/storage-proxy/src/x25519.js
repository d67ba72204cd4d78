// X25519 as the platform computes it, for many points in one call: what crosses from WebAssembly to JavaScript and back is a
// job, not a report. What comes is a view of WebAssembly's memory, which may move while a promise is waited for, so it is copied.

const X25519 = { name: "X25519" };
const LEN = 32;
// What precedes a private key in PKCS #8. RFC 8410 §7.
const PKCS8 = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20];

/** The private key with these 32 bytes, which nothing exports any more. */
export async function importPrivateKey(bytes) {
  const encoded = new Uint8Array(PKCS8.length + LEN);
  encoded.set(PKCS8);
  encoded.set(bytes.subarray(0, LEN), PKCS8.length);
  try {
    return await crypto.subtle.importKey("pkcs8", encoded, X25519, false, ["deriveBits"]);
  } finally {
    encoded.fill(0);
  }
}

/**
 * What the private key and each of the points come to, 32 bytes each, in order. Zeros where the platform refuses: whatever
 * is wrong with one of them concerns no other.
 */
export async function agree(privateKey, pointsInMemory) {
  const points = pointsInMemory.slice();
  const shared = new Uint8Array(points.length);
  // One after the other: the platform computes each at once, in this thread, and all of them together would take as long.
  for (let at = 0; at + LEN <= points.length; at += LEN) {
    try {
      const point = await crypto.subtle.importKey("raw", points.subarray(at, at + LEN), X25519, false, []);
      const bits = await crypto.subtle.deriveBits({ ...X25519, public: point }, privateKey, LEN * 8);
      const bytes = new Uint8Array(bits);
      shared.set(bytes, at);
      bytes.fill(0);
    } catch {
      shared.fill(0, at, at + LEN);
    }
  }
  return shared;
}
