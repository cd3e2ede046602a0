//! Why one side of a connection does not trust the other, in words that say what to do.
//!
//! Thrift keeps of a failed read its words alone, so these words begin with a mark by
//! which they are known again.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// How the reasons begin.
const MARK: &str = "TLS";

/// What a plain node or client says of bytes that are TLS.
pub(crate) const UNEXPECTED: &str = "TLS, where Thrift was expected: only one side of this \
    connection was given --tls-cert, --tls-key and --tls-ca";

/// Is this the reason of [`distrust`], or that one side speaks TLS and the other does not?
pub(crate) fn is_distrust(words: &str) -> bool {
    words.starts_with(MARK)
}

/// What a failure of TLS means.
pub(crate) fn distrust(error: &Error) -> io::Error {
    let why = match error {
        Error::NoCertificatesPresented => "the peer showed no certificate".into(),
        Error::InvalidCertificate(e) => format!("the peer's certificate {}", fault(e)),
        Error::AlertReceived(alert) => refusal(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the peer does not speak TLS: it lacks --tls-cert, --tls-key and --tls-ca".into()
        }
        other => other.to_string(),
    };
    io::Error::new(io::ErrorKind::InvalidData, format!("{MARK}: {why}"))
}

/// What is wrong with a certificate, as what follows its name.
pub(crate) fn fault(error: &CertificateError) -> String {
    use CertificateError::{BadSignature, InvalidPurpose, InvalidPurposeContext, UnknownIssuer};
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        Expired | ExpiredContext { .. } => "has expired: it must be renewed".into(),
        NotValidYet | NotValidYetContext { .. } => "is not valid yet: is a clock wrong?".into(),
        UnknownIssuer | BadSignature => "is of another CA than the one given by --tls-ca".into(),
        InvalidPurpose | InvalidPurposeContext { .. } => "is not for this use: a node's must be \
            good for server and client authentication, a client's for client authentication"
            .into(),
        other => format!("cannot be taken: {other}"),
    }
}

/// Why the peer turned us away.
fn refusal(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the peer takes nobody without a certificate of its CA".into()
        }
        AlertDescription::CertificateExpired => {
            "the peer says that our certificate has expired: it must be renewed".into()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the peer says that our certificate is of another CA than its own".into()
        }
        AlertDescription::UnsupportedCertificate => {
            "the peer says that our certificate is not for this use".into()
        }
        AlertDescription::ProtocolVersion => "the peer does not speak TLS 1.3".into(),
        other => format!("the peer turned us away: {other:?}"),
    }
}
