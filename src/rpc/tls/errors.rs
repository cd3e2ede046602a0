//! Messages for TLS failures that say what to do.
//!
//! The Thrift crate keeps only the text of a failed read. So each message starts with
//! [`TLS_MARK`], by which [`Error`](crate::error::Error) recognizes it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::error::TLS_MARK;

/// The message of a side without TLS that receives TLS.
pub(crate) const UNEXPECTED: &str = "TLS, where Thrift was expected: only one side of this \
    connection was given --tls-cert, --tls-key and --tls-ca";

/// The error to report for a TLS failure.
pub(crate) fn describe(error: &Error) -> io::Error {
    let message = match error {
        Error::NoCertificatesPresented => "the peer showed no certificate".into(),
        Error::InvalidCertificate(e) => {
            format!("the peer's certificate {}", certificate_problem(e))
        }
        Error::AlertReceived(alert) => alert_message(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the peer does not speak TLS: it lacks --tls-cert, --tls-key and --tls-ca".into()
        }
        other => other.to_string(),
    };
    io::Error::new(io::ErrorKind::InvalidData, format!("{TLS_MARK}: {message}"))
}

/// What is wrong with a certificate, to follow its name in a sentence.
pub(crate) fn certificate_problem(error: &CertificateError) -> String {
    use CertificateError::{BadSignature, InvalidPurpose, InvalidPurposeContext, UnknownIssuer};
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        Expired | ExpiredContext { .. } => "has expired: renew it".into(),
        NotValidYet | NotValidYetContext { .. } => "is not valid yet: check the clocks".into(),
        UnknownIssuer | BadSignature => "is of another CA than the one given by --tls-ca".into(),
        InvalidPurpose | InvalidPurposeContext { .. } => "is not for this use: a node's must \
            allow server and client authentication, a client's client authentication"
            .into(),
        other => format!("was rejected: {other}"),
    }
}

/// Why the peer rejected this side.
fn alert_message(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "the peer requires a certificate of its CA".into(),
        AlertDescription::CertificateExpired => {
            "the peer reports that our certificate has expired: renew it".into()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the peer reports that our certificate is of another CA than its own".into()
        }
        AlertDescription::UnsupportedCertificate => {
            "the peer reports that our certificate is not for this use".into()
        }
        AlertDescription::ProtocolVersion => "the peer does not speak TLS 1.3".into(),
        other => format!("the peer rejected the connection: {other:?}"),
    }
}
