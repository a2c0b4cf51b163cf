//! Why sampling could not begin, in words that say what to do.

use crate::error::Error;

/// Turns refusals that have a known reason into errors that say what to do.
pub(super) fn explain(error: Box<Error>) -> Box<Error> {
    let errno = match &*error {
        Error::Load(e) | Error::Kernel(e) => e.errno(),
        Error::Sampling { error, .. } => error.errno(),
        _ => None,
    };
    match (errno, &*error) {
        (Some(bpf_sys::Errno::EPERM | bpf_sys::Errno::EACCES), _) if !is_verifier(&error) => {
            Box::new(Error::Privileges(error))
        }
        (Some(bpf_sys::Errno::ENOSYS), Error::Sampling { .. }) => Box::new(Error::NoPerfEvents),
        (None, Error::Load(e)) if needs_btf(e) => Box::new(Error::NoBtf),
        _ => error,
    }
}

/// The verifier's refusals are EACCES too, but have something to say.
fn is_verifier(error: &Error) -> bool {
    let Error::Load(error) = error else { return false };
    let bpf_loader::Error::InProgram { error, .. } = &**error else { return false };
    matches!(&**error, bpf_loader::Error::ProgramLoad { log, .. } if !log.text().is_empty())
}

fn needs_btf(error: &bpf_loader::Error) -> bool {
    match error {
        bpf_loader::Error::InProgram { error, .. } => needs_btf(error),
        other => matches!(other, bpf_loader::Error::NoKernelBtf { .. } | bpf_loader::Error::CoreNoTarget),
    }
}
