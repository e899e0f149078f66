//! What an interpreter is slow at: in version 2 of the interface the host does it.

/// SHA-256 of the bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    imp::sha256(bytes)
}

/// SHA-256 of the SHA-256 of the parts, one after the other: the identifiers of Bitcoin's blocks and
/// transactions, in the order in which they are computed and serialised.
pub fn double_sha256(parts: &[&[u8]]) -> [u8; 32] {
    imp::double_sha256(parts)
}

/// Two lower-case digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    imp::hex(bytes)
}

#[cfg(all(target_arch = "wasm32", feature = "v2"))]
use crate::abi::wasm as imp;

#[cfg(not(all(target_arch = "wasm32", feature = "v2")))]
mod imp {
    use bitcoin_hashes::{sha256, sha256d, Hash, HashEngine};

    pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
        sha256::Hash::hash(bytes).to_byte_array()
    }

    pub(super) fn double_sha256(parts: &[&[u8]]) -> [u8; 32] {
        let mut engine = sha256d::Hash::engine();
        parts.iter().for_each(|part| engine.input(part));
        sha256d::Hash::from_engine(engine).to_byte_array()
    }

    pub(super) fn hex(bytes: &[u8]) -> String {
        bytes.iter().flat_map(|byte| super::HEX[usize::from(*byte)].map(char::from)).collect()
    }
}

/// The two digits of each byte.
#[cfg(not(all(target_arch = "wasm32", feature = "v2")))]
pub(crate) const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standard() {
        // Source: FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(b"abc")), abc);
        assert_eq!(double_sha256(&[b"a", b"", b"bc"]), sha256(&sha256(b"abc")));
    }
}
