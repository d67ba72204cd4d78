//! Polynomials by their values at the roots of unity.

use super::field::Field;

/// The roots of unity of order `n = 2^log`, in the order in which a proof has values at them.
#[derive(Clone)]
pub(super) struct Roots<F> {
    log: u32,
    /// Powers of the first root but 1.
    powers: Vec<F>,
    /// The inverse of `n`.
    inverse: F,
}

impl<F: Field> Roots<F> {
    /// `None` for more roots than `prio` has.
    pub(super) fn new(log: u32) -> Option<Self> {
        let root = F::root(log)?;
        let powers = std::iter::successors(Some(F::ONE), |power| Some(*power * root));
        let inverse = (0..log).fold(F::ONE, |inverse, _| inverse * F::HALF);
        Some(Self { log, powers: powers.take(1 << log).collect(), inverse })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.powers.len()
    }

    /// In order, from 1.
    pub(super) fn powers(&self) -> &[F] {
        &self.powers
    }

    /// The inverse of the first root but 1, which is the last one.
    pub(super) fn last(&self) -> F {
        self.powers.last().copied().unwrap_or(F::ONE)
    }

    /// What the values at the roots are to be multiplied with, so that their sum is the value at `at`; and `at` to the power of
    /// `n`. No division, so that a root itself is no exception.
    ///
    /// The Lagrange polynomial of a root `w` is `w/n · (x^n - 1)/(x - w)`, and that is `w/n` times the product of all
    /// `x^h + w^h` for powers of two `h < n`. Of `w^h` there are only `n/h`, so the products for all roots grow like a tree.
    pub(super) fn coefficients(&self, at: F) -> (Vec<F>, F) {
        let squares: Vec<F> = std::iter::successors(Some(at), |square| Some(*square * *square))
            .take(self.log as usize + 1)
            .collect();
        let mut out = Vec::with_capacity(self.len());
        out.push(self.inverse);
        for (level, square) in squares.iter().enumerate().take(self.log as usize).rev() {
            // `w^h` of the second half is that of the first, negated. With the last product comes `w`.
            let known = out.len();
            out.extend_from_within(..);
            let (first, second) = out.split_at_mut(known);
            for ((i, first), second) in first.iter_mut().enumerate().zip(second) {
                let root = self.powers[i << level];
                let (fixed, turned) =
                    if level > 0 { (*square, root) } else { (self.powers[2 * i], *square * root) };
                *first *= fixed + turned;
                *second *= fixed - turned;
            }
        }
        (out, squares.last().copied().unwrap_or(at))
    }

    /// The values at the roots of a polynomial, in place of its coefficients, as many: decimation in time.
    pub(super) fn transform(&self, values: &mut [F]) {
        let n = values.len();
        for i in 0..n {
            let j = i.reverse_bits() >> (usize::BITS - self.log).min(usize::BITS - 1);
            if i < j {
                values.swap(i, j);
            }
        }
        let mut half = 1;
        while half < n {
            let stride = n / (2 * half);
            for block in values.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                let roots = self.powers.iter().step_by(stride);
                for ((a, b), root) in low.iter_mut().zip(high).zip(roots) {
                    let (sum, product) = (*a, *b * *root);
                    *a = sum + product;
                    *b = sum - product;
                }
            }
            half *= 2;
        }
    }
}
