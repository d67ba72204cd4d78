//! Sums of products of two integers below `2^128`, which are reduced once and not after each product.
//!
//! Two ways, as machines differ. Both are compiled for tests.

/// In limbs of 26 bits: a product of two has 52, so that sums of many fit a word and no carry is passed on before the end. For
/// WebAssembly, where a product of two words is four products already, and each carry a comparison.
#[cfg(any(test, target_arch = "wasm32"))]
pub(in crate::vdaf) mod limbs {
    const BITS: u32 = 26;
    const LOW: u64 = (1 << BITS) - 1;

    /// A factor.
    #[derive(Clone, Copy)]
    pub(in crate::vdaf) struct Factor([u64; 5]);

    /// The sum, by the place of the limb.
    #[derive(Clone, Copy, Default)]
    pub(in crate::vdaf) struct Sum([u64; 9]);

    impl Factor {
        #[inline(always)]
        pub(in super::super) fn new([low, high]: [u64; 2]) -> Self {
            let middle = low >> (2 * BITS) | high << (64 - 2 * BITS);
            Self([low & LOW, (low >> BITS) & LOW, middle & LOW, (high >> 14) & LOW, high >> 40])
        }
    }

    impl Sum {
        /// Five products of 52 bits each come to one place: `2^9` times that, and what is carried, is below `2^64`.
        pub(in super::super) const PRODUCTS_MAX: usize = 512;

        #[inline(always)]
        pub(in super::super) fn add(&mut self, a: &Factor, b: &Factor) {
            let (Factor([a0, a1, a2, a3, a4]), Factor([b0, b1, b2, b3, b4])) = (*a, *b);
            let s = &mut self.0;
            s[0] += a0 * b0;
            s[1] += a0 * b1 + a1 * b0;
            s[2] += a0 * b2 + a1 * b1 + a2 * b0;
            s[3] += a0 * b3 + a1 * b2 + a2 * b1 + a3 * b0;
            s[4] += a0 * b4 + a1 * b3 + a2 * b2 + a3 * b1 + a4 * b0;
            s[5] += a1 * b4 + a2 * b3 + a3 * b2 + a4 * b1;
            s[6] += a2 * b4 + a3 * b3 + a4 * b2;
            s[7] += a3 * b4 + a4 * b3;
            s[8] += a4 * b4;
        }

        /// The integer, least significant word first.
        #[inline(always)]
        pub(in super::super) fn words(self) -> [u64; 5] {
            let mut carry = 0;
            let l = self.0.map(|place| {
                let value = place + carry;
                carry = value >> BITS;
                value & LOW
            });
            // Limb i begins at bit 26 i.
            [
                l[0] | l[1] << 26 | l[2] << 52,
                l[2] >> 12 | l[3] << 14 | l[4] << 40,
                l[4] >> 24 | l[5] << 2 | l[6] << 28 | l[7] << 54,
                l[7] >> 10 | l[8] << 16 | carry << 42,
                carry >> 22,
            ]
        }
    }
}

/// In words, where the machine multiplies them.
#[cfg(any(test, not(target_arch = "wasm32")))]
pub(in crate::vdaf) mod whole {
    use super::super::words::{add, mul};

    /// A factor.
    #[derive(Clone, Copy)]
    pub(in crate::vdaf) struct Factor([u64; 2]);

    /// The sum.
    #[derive(Clone, Copy, Default)]
    pub(in crate::vdaf) struct Sum([u64; 5]);

    impl Factor {
        #[inline(always)]
        pub(in super::super) fn new(words: [u64; 2]) -> Self {
            Self(words)
        }
    }

    impl Sum {
        /// As many as the other way, though the last word has room for more.
        pub(in super::super) const PRODUCTS_MAX: usize = 512;

        #[inline(always)]
        pub(in super::super) fn add(&mut self, a: &Factor, b: &Factor) {
            let (Factor([a_low, a_high]), Factor([b_low, b_high])) = (*a, *b);
            let (p0, p1) = mul(a_low, b_low);
            let (q0, q1) = mul(a_low, b_high);
            let (r0, r1) = mul(a_high, b_low);
            let (s0, s1) = mul(a_high, b_high);
            let (t1, carry) = add(p1, q0, 0);
            let (t2, carry) = add(q1, s0, carry);
            let t3 = s1 + carry;
            let (t1, carry) = add(t1, r0, 0);
            let (t2, carry) = add(t2, r1, carry);
            let t3 = t3 + carry;
            let s = &mut self.0;
            let mut carry;
            (s[0], carry) = add(s[0], p0, 0);
            (s[1], carry) = add(s[1], t1, carry);
            (s[2], carry) = add(s[2], t2, carry);
            (s[3], carry) = add(s[3], t3, carry);
            s[4] += carry;
        }

        /// The integer, least significant word first.
        #[inline(always)]
        pub(in super::super) fn words(self) -> [u64; 5] {
            self.0
        }
    }
}

#[cfg(target_arch = "wasm32")]
pub(super) use limbs::{Factor, Sum};
#[cfg(not(target_arch = "wasm32"))]
pub(super) use whole::{Factor, Sum};
