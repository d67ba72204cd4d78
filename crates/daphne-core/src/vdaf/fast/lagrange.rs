//! Polynomials by their values at the roots of unity.

use std::ops::{Add, AddAssign, Mul, MulAssign, Neg, Sub};

/// What is needed of a field, which both lines of `prio` have.
pub(super) trait Arithmetic:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + MulAssign
    + PartialEq
{
}

impl<F> Arithmetic for F where
    F: Copy
        + Add<Output = F>
        + Sub<Output = F>
        + Mul<Output = F>
        + Neg<Output = F>
        + AddAssign
        + MulAssign
        + PartialEq
{
}

/// Powers of a root of unity of order `n`, which is a power of two: all roots of that order, in the order in which `prio` has
/// values at them.
pub(super) fn roots<F: Arithmetic>(one: F, root: F, n: usize) -> Vec<F> {
    std::iter::successors(Some(one), |power| Some(*power * root)).take(n).collect()
}

/// The inverse of a power of two.
pub(super) fn inverse_of_power<F: Arithmetic>(one: F, half: F, n: usize) -> F {
    (0..n.trailing_zeros()).fold(one, |inverse, _| inverse * half)
}

/// What the values at `roots` are to be multiplied with, so that their sum is the value at `at`: the Lagrange polynomials of
/// the roots of unity, `w_i/n` times the product of all `at - w_j` but the i-th. `at` is public. No division, so that a root
/// itself is no exception.
pub(super) fn coefficients<F: Arithmetic>(roots: &[F], inverse_of_n: F, one: F, at: F) -> Vec<F> {
    let mut product = inverse_of_n;
    let mut out = Vec::with_capacity(roots.len());
    for root in roots {
        out.push(product * *root);
        product *= at - *root;
    }
    product = one;
    for (coefficient, root) in out.iter_mut().zip(roots).rev() {
        *coefficient *= product;
        product *= at - *root;
    }
    out
}

/// The value at the last root of a polynomial of so low a degree that the values at the others determine it.
pub(super) fn last_value<F: Arithmetic>(values: &[F], roots: &[F], zero: F) -> F {
    // The highest coefficient is the sum of all values times the roots, but for a factor; and it is zero. The inverse of the
    // last root is the second one.
    let sum = values.iter().zip(roots).fold(zero, |sum, (value, root)| sum + *value * *root);
    roots.get(1).map_or(zero, |inverse_of_last| -(sum * *inverse_of_last))
}

/// The values of a polynomial, given by its coefficients, at all roots of unity: decimation in time. `values` has as many
/// places as there are roots.
pub(super) fn transform<F: Arithmetic>(values: &mut [F], roots: &[F]) {
    let n = values.len();
    let bits = n.trailing_zeros();
    for i in 0..n {
        let j = if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) };
        if i < j {
            values.swap(i, j);
        }
    }
    let mut half = 1;
    while half < n {
        let stride = n / (2 * half);
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for ((a, b), root) in low.iter_mut().zip(high).zip(roots.iter().step_by(stride)) {
                let (sum, product) = (*a, *b * *root);
                *a = sum + product;
                *b = sum - product;
            }
        }
        half *= 2;
    }
}
