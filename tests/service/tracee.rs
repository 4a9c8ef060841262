//! A thread of another process that is held still, as a hung one is, while the others go on.

#![allow(unsafe_code)]

/// Goes on when dropped.
pub(crate) struct Held(libc::pid_t);

impl Held {
    /// Holds the thread of `pid` that has this name. To be dropped by the thread that called this.
    pub(crate) fn thread(pid: u32, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
        let is_it = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks.map(|task| task.expect("a thread")).find(is_it).unwrap_or_else(|| panic!("no thread {name}"));
        let id: libc::pid_t = task.file_name().to_str().and_then(|id| id.parse().ok()).expect("a thread's id");
        ask(libc::PTRACE_SEIZE, id);
        let held = Self(id);
        ask(libc::PTRACE_INTERRUPT, id);
        // SAFETY: no status is asked for.
        let stopped = unsafe { libc::waitpid(id, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(stopped, id, "{}", std::io::Error::last_os_error());
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ask(libc::PTRACE_DETACH, self.0);
    }
}

fn ask(request: libc::c_uint, thread: libc::pid_t) {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests use neither address nor data, which are null.
    let result = unsafe { libc::ptrace(request, thread, none, none) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
