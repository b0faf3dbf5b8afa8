//! Settings of how much is done at once for those who come.

use super::sources::Sources;

/// The keys of the section, as they are shown.
pub(super) const KEYS: &[&str] = &["admission.handshakes", "admission.resumes"];

const HANDSHAKES: usize = 64;
const RESUMES: usize = 32;

/// How much is done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// TLS handshakes of nodes; of others half as many.
    pub handshakes: usize,
    /// Members that resume and are told their map.
    pub resumes: usize,
}

impl AdmissionSettings {
    pub(super) fn read(sources: &mut Sources<'_>) -> Self {
        let mut number = |variable, key, default| {
            let found = sources.find(None, variable, Some("admission"), key);
            // More than there can be connections is as many as there can be.
            sources.number(found).map_or(default, |number| usize::try_from(number).unwrap_or(4096).min(4096))
        };
        Self {
            handshakes: number("RIA_ADMISSION_HANDSHAKES", "handshakes", HANDSHAKES),
            resumes: number("RIA_ADMISSION_RESUMES", "resumes", RESUMES),
        }
    }
}
