//! `service.name`: one decision for all signals.

/// The name of everything that cannot be seen from the agent's pid namespace, together.
pub const HIDDEN: &str = "other-pid-namespace";

/// The name of a process' service: the one that the process states, else its executable's name, else what the kernel calls
/// it. The kernel's own threads do one work on every CPU under names such as `kworker/3:1`: what follows the slash is cut.
///
/// Pid 0 stands for all processes that cannot be seen from the agent's pid namespace: the idle task is never measured.
pub fn service_name<'a>(
    pid: u32,
    stated: Option<&'a str>,
    executable: Option<&'a str>,
    comm: Option<&'a str>,
) -> &'a str {
    let of_comm = || comm.and_then(|comm| comm.split('/').find(|part| !part.is_empty()));
    match (pid, stated) {
        (_, Some(stated)) => stated,
        (0, None) => HIDDEN,
        _ => executable.filter(|name| !name.is_empty()).or_else(of_comm).unwrap_or("unknown_service"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_name_that_is_known() {
        let name = |stated, executable, comm| service_name(7, stated, executable, comm);
        assert_eq!(name(Some("shop"), Some("java"), Some("main")), "shop");
        assert_eq!(name(None, Some("java"), Some("main")), "java");
        assert_eq!(name(None, None, Some("main")), "main");
        assert_eq!(name(None, Some(""), Some("kworker/3:1-events")), "kworker");
        assert_eq!(name(None, None, Some("/")), "unknown_service");
        assert_eq!(name(None, None, None), "unknown_service");
        assert_eq!(service_name(0, None, None, Some("swapper/0")), HIDDEN);
    }
}
