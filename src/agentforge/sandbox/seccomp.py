"""Which system calls there are inside a sandbox: two filters, of which the kernel applies the stricter answer.

The first is a list of what programs need; any other call, also one that a later kernel brings, does not exist there
(ENOSYS: libraries fall back to an older way). The second refuses by their arguments what the list lets through in
principle. Arguments are compared in their lower 32 bits, as the kernel takes them: see CVE-2019-10063.

The list follows the default profile that container engines agree on, less what a worker has no use for: tracing,
kernel keys, file handles, namespaces.
"""

import errno
import itertools
import os

__all__ = ["filters"]

_NEEDED = """
accept accept4 access alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_getres
clock_gettime clock_nanosleep clone close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group
faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait
futex_waitv futex_wake futimesat get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64
getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat
madvise map_shadow_stack mbind membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall
mmap mprotect mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open
openat pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64
preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2 restart_syscall
riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto
set_mempolicy set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid
setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt
shmget shutdown sigaltstack signalfd signalfd4 socket socketpair splice stat statfs statx symlink symlinkat sync
sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime
utimensat utimes vfork vmsplice wait4 waitid waitpid write writev
"""

_REFUSED = """
acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init fanotify_mark finit_module
fsconfig fsmount fsopen fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
kexec_load kexec_file_load keyctl lookup_dcookie migrate_pages mount mount_setattr move_mount move_pages
name_to_handle_at open_by_handle_at open_tree perf_event_open personality pidfd_getfd pivot_root process_madvise
process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot request_key setdomainname sethostname setns
settimeofday swapoff swapon syslog umount umount2 unshare userfaultfd vhangup
"""
"""Refused by name with EPERM: to a program that tries them the reason is plain."""

_FAMILIES = {1, 2, 10}
"""AF_UNIX, AF_INET and AF_INET6, socket(2): within the sandbox's own network."""
_ALL_FAMILIES = 64
"""Well above AF_MAX of any kernel."""

_CLONE_FLAGS = (
    0x00020000,  # CLONE_NEWNS
    0x02000000,  # CLONE_NEWCGROUP
    0x04000000,  # CLONE_NEWUTS
    0x08000000,  # CLONE_NEWIPC
    0x10000000,  # CLONE_NEWUSER
    0x20000000,  # CLONE_NEWPID
    0x40000000,  # CLONE_NEWNET
)
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, ioctl_tty(2): they type into the terminal of who started the host."""
_SET_ID = (0o4000, 0o2000)
"""S_ISUID and S_ISGID: a file that an inmate leaves behind must not give its user's rights to who runs it outside."""
_MODES = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1, "mknod": 1, "mknodat": 2}
"""Calls that set a file's mode, with the number of the argument that says it."""
_OPENING = {"open": (1, 2), "openat": (2, 3)}
"""Calls that may make a file, with the numbers of the arguments for flags and mode.

`openat2` is not listed at all: what it says can't be seen from here, and libraries do without it.
"""
_MAKING = (0o100, 0o20000000)
"""O_CREAT and O_TMPFILE, open(2)."""
_LOW = 0xFFFFFFFF


def filters() -> tuple[bytes, bytes]:
    """Return both filters as BPF programs for this machine. Raises RuntimeError if libseccomp is missing."""
    import pyseccomp  # looks for the library when it is imported

    listed = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))
    for name in _known(_NEEDED.split()):
        listed.add_rule(pyseccomp.ALLOW, name)
    for name in _known(_REFUSED.split()):
        listed.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    argued = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for call, position, mask, value, code in _arguments():
        arg = pyseccomp.Arg(position, pyseccomp.MASKED_EQ, mask, value)
        argued.add_rule(pyseccomp.ERRNO(code), call, arg)
    for name, flag, bit in itertools.product(_known(list(_OPENING)), _MAKING, _SET_ID):
        flags, mode = _OPENING[name]
        made = pyseccomp.Arg(flags, pyseccomp.MASKED_EQ, flag, flag)
        argued.add_rule(pyseccomp.ERRNO(errno.EPERM), name, made, pyseccomp.Arg(mode, pyseccomp.MASKED_EQ, bit, bit))
    return _exported(listed), _exported(argued)


def _arguments() -> list[tuple[str, int, int, int, int]]:
    """Return call, number of the argument, its mask, the value that is refused, and with which error."""
    families = [each for each in range(_ALL_FAMILIES) if each not in _FAMILIES]
    return [
        *(("socket", 0, _LOW, family, errno.EPERM) for family in families),
        *(("socketpair", 0, _LOW, family, errno.EPERM) for family in families),
        *(("clone", 0, flag, flag, errno.EPERM) for flag in _CLONE_FLAGS),
        *(("ioctl", 1, _LOW, command, errno.EPERM) for command in _TERMINAL_INPUT),
        *((name, _MODES[name], bit, bit, errno.EPERM) for name in _known(list(_MODES)) for bit in _SET_ID),
    ]


def _known(names: list[str]) -> list[str]:
    """Return the calls that this machine's architecture and library know."""
    import pyseccomp

    native = pyseccomp.system_arch()
    return [name for name in names if pyseccomp.resolve_syscall(native, name) >= 0]


def _exported(filter_: "object") -> bytes:
    descriptor = os.memfd_create("seccomp")
    with os.fdopen(descriptor, "rb") as file:
        filter_.export_bpf(file)  # type: ignore[attr-defined]
        file.seek(0)
        return file.read()
