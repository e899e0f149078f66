//! Signatures of requests, as Standard Webhooks has them.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, "Signature scheme".

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::config::Secret;

/// What a secret begins with that is written as base64.
const BASE64: &str = "whsec_";

/// What signs.
pub(super) struct Signer(Hmac<Sha256>);

impl Signer {
    /// A secret is taken as it is, or, if it begins with `whsec_`, as base64 behind that.
    pub(super) fn new(secret: &Secret) -> Result<Signer, &'static str> {
        let text = secret.reveal();
        let key = match text.strip_prefix(BASE64) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| "what follows `whsec_` is no base64")?,
            None => text.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err("it is empty");
        }
        // HMAC takes keys of any length.
        Hmac::new_from_slice(&key).map(Signer).map_err(|_| "it is no key")
    }

    /// The header's value for a request. `timestamp`: seconds since 1970.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut hmac = self.0.clone();
        hmac.update(format!("{id}.{timestamp}.").as_bytes());
        hmac.update(body);
        format!("v1,{}", STANDARD.encode(hmac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_as_the_specification_does() {
        // The example of the specification's libraries, and of its documentation.
        let signer = Signer::new(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let signature =
            signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_plain_secret_is_taken_as_it_is() {
        let plain = Signer::new(&Secret::new("sesame")).unwrap();
        let encoded = Signer::new(&Secret::new("whsec_c2VzYW1l")).unwrap();
        let sign = |signer: &Signer| signer.sign("a", 1, b"body");
        assert_eq!(sign(&plain), sign(&encoded));
        let others = [plain.sign("b", 1, b"body"), plain.sign("a", 2, b"body"), plain.sign("a", 1, b"bodY")];
        assert!(others.iter().all(|other| *other != sign(&plain)), "{others:?}");
        for (wrong, problem) in [("", "it is empty"), ("whsec_", "it is empty"), ("whsec_!", "no base64")] {
            let found = Signer::new(&Secret::new(wrong)).err().unwrap();
            assert!(found.contains(problem), "{wrong}: {found}");
        }
    }
}
