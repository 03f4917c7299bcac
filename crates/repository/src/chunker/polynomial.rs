//! The polynomial a repository's chunks are cut by.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// restic's: the largest prime at which a byte above the degree still fits in 64 bits.
pub(super) const DEGREE: u32 = 53;

/// An irreducible polynomial of degree 53 over GF(2); bit n is the coefficient of x^n. It is part of a repository's
/// secret: whoever does not know it cannot tell from the chunks' lengths which file they are of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Polynomial(u64);

/// Why a text is no chunker polynomial.
#[derive(Debug, thiserror::Error)]
pub enum ParsePolynomialError {
    /// Not a hexadecimal number of 64 bits.
    #[error("{0:?} is not a chunker polynomial: hexadecimal digits are needed")]
    NotHexadecimal(String),
    /// Another degree than restic's.
    #[error("chunker polynomial {0:x} is not of degree 53")]
    Degree(u64),
    /// A product of others: its fingerprints would not be evenly distributed.
    #[error("chunker polynomial {0:x} is not irreducible")]
    Reducible(u64),
}

impl Polynomial {
    /// A new polynomial from the operating system's randomness.
    pub fn random() -> Polynomial {
        loop {
            let mut bytes = [0; 8];
            aws_lc_rs::rand::fill(&mut bytes).expect("the operating system provides randomness");
            let below_degree = u64::from_le_bytes(bytes) & ((1 << DEGREE) - 1);
            // Without the constant term, x would be a factor. One in 26 of the rest is irreducible.
            if let Ok(polynomial) = Polynomial::new(1 << DEGREE | below_degree | 1) {
                return polynomial;
            }
        }
    }

    /// The polynomial with these coefficients.
    ///
    /// # Errors
    /// If it is not of degree 53 or not irreducible.
    pub fn new(coefficients: u64) -> Result<Polynomial, ParsePolynomialError> {
        if coefficients.checked_ilog2() != Some(DEGREE) {
            return Err(ParsePolynomialError::Degree(coefficients));
        }
        let candidate = Polynomial(coefficients);
        if !candidate.is_irreducible() {
            return Err(ParsePolynomialError::Reducible(coefficients));
        }
        Ok(candidate)
    }

    /// The remainder of `value` divided by this polynomial.
    pub(super) fn reduce(self, mut value: u128) -> u64 {
        while let Some(top) = value.checked_ilog2()
            && top >= DEGREE
        {
            value ^= u128::from(self.0) << (top - DEGREE);
        }
        value as u64
    }

    fn square(self, value: u64) -> u64 {
        // Over GF(2) the mixed terms cancel: squaring moves coefficient n to 2n.
        let spread = (0..DEGREE).fold(0, |sum, bit| sum | u128::from(value >> bit & 1) << (2 * bit));
        self.reduce(spread)
    }

    /// Rabin's test (Probabilistic Algorithms in Finite Fields, 1980): x^(2^53) - x is the product of all irreducible
    /// polynomials whose degree divides 53. As 53 is prime, what divides it and has no linear factor is irreducible.
    fn is_irreducible(self) -> bool {
        let has_linear_factor = self.0 & 1 == 0 || self.0.count_ones().is_multiple_of(2);
        let x = 2;
        !has_linear_factor && (0..DEGREE).fold(x, |power, _| self.square(power)) == x
    }
}

impl fmt::Display for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Polynomial(secret)")
    }
}

impl FromStr for Polynomial {
    type Err = ParsePolynomialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // from_str_radix alone would take a sign.
        let only_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(coefficients) if only_digits => Polynomial::new(coefficients),
            _ => Err(ParsePolynomialError::NotHexadecimal(text.to_owned())),
        }
    }
}

impl Serialize for Polynomial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Polynomial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From restic's own tests (restic/chunker, polynomials_test.go).
    #[test]
    fn irreducible_polynomials_are_told_from_products() {
        for irreducible in [0x3DA3358B4DC173, 0x2482734cacca49] {
            assert!(Polynomial::new(irreducible).is_ok(), "{irreducible:x}");
        }
        for reducible in [
            0x38f1e565e288df,
            0x30a8295b9d5c91,
            0x255f4350b962cb,
            0x267f776110a235,
            0x2f4dae10d41227,
            0x312daf4b284899,
            0x29dfb6553d01d1,
            0x3548245eb26257,
            0x3199e7ef4211b3,
            0x362f39017dae8b,
            0x200d57aa6fdacb,
            0x35e0a4efa1d275,
            0x2ced55b026577f,
            0x260b012010893d,
            0x2df29cbcd59e9d,
            0x3f2ac7488bd429,
            0x3e5cb1711669fb,
            0x226d8de57a9959,
        ] {
            let refused = Polynomial::new(reducible);
            assert!(matches!(refused, Err(ParsePolynomialError::Reducible(_))), "{reducible:x}");
        }
    }

    #[test]
    fn random_polynomials_differ_and_survive_being_written_and_read() {
        let (one, other) = (Polynomial::random(), Polynomial::random());
        assert!(one != other);
        assert!(one.to_string().parse::<Polynomial>().unwrap() == one);
        let json = serde_json::to_string(&other).unwrap();
        assert_eq!(json, format!("\"{other}\""));
        assert!(serde_json::from_str::<Polynomial>(&json).unwrap() == other);
    }

    #[test]
    fn only_hexadecimal_polynomials_of_degree_53_are_read() {
        for text in ["", "+3da3358b4dc173", "0x3da3358b4dc173", "3da3358b4dc173g", "13da3358b4dc17300"] {
            assert!(matches!(text.parse::<Polynomial>(), Err(ParsePolynomialError::NotHexadecimal(_))), "{text}");
        }
        // x^2 + x + 1 is irreducible, and of another degree.
        for text in ["0", "7", "7da3358b4dc173", "ffffffffffffffff"] {
            assert!(matches!(text.parse::<Polynomial>(), Err(ParsePolynomialError::Degree(_))), "{text}");
        }
    }
}
