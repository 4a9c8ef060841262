// System calls that fail and clocks that are set, as a test says while the server runs; put before the C library (ld.so(8),
// LD_PRELOAD). What is to fail stands in a file that both have open: see inject.rs, which has the same layout.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum call { SOCKET, BIND, SENDMSG, SENDMMSG, RECVMMSG, EPOLL_WAIT, ACCEPT, CALLS };
enum { SEGMENT = 103 };

struct fault {
    // The errno, how many calls are still to fail with it, the worker whose calls those are (-1: anybody's), how many have failed.
    atomic_int error, left, worker, failed;
};

static struct control {
    struct fault faults[CALLS];
    // Merged datagrams that have left; seconds that the clock on the wall is ahead.
    _Atomic int64_t merged, ahead;
} *control;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TURNSERVER_TEST_FAULTS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED)
        control = shared;
}

static int is_worker(int wanted)
{
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    return strncmp(name, "worker-", 7) == 0 && atoi(name + 7) == wanted;
}

static int fails(enum call call)
{
    if (!control || atomic_load(&control->faults[call].left) <= 0)
        return 0;
    struct fault *fault = &control->faults[call];
    int worker = atomic_load(&fault->worker);
    if (worker >= 0 && !is_worker(worker))
        return 0;
    if (atomic_fetch_sub(&fault->left, 1) <= 0)
        return 0;
    atomic_fetch_add(&fault->failed, 1);
    errno = atomic_load(&fault->error);
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int socket(int domain, int type, int protocol)
{
    return fails(SOCKET) ? -1 : NEXT(socket)(domain, type, protocol);
}

int bind(int socket, const struct sockaddr *address, socklen_t length)
{
    return fails(BIND) ? -1 : NEXT(bind)(socket, address, length);
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags)
{
    return fails(SENDMSG) ? -1 : NEXT(sendmsg)(socket, message, flags);
}

static int is_merged(struct msghdr *message)
{
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control))
        if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == SEGMENT)
            return 1;
    return 0;
}

int sendmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags)
{
    if (fails(SENDMMSG))
        return -1;
    int sent = NEXT(sendmmsg)(socket, messages, count, flags);
    for (int at = 0; control && at < sent; at++)
        if (is_merged(&messages[at].msg_hdr))
            atomic_fetch_add(&control->merged, 1);
    return sent;
}

int recvmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags, struct timespec *limit)
{
    return fails(RECVMMSG) ? -1 : NEXT(recvmmsg)(socket, messages, count, flags, limit);
}

// Where the runtime waits, that is; a look without waiting succeeds.
int epoll_wait(int set, struct epoll_event *events, int count, int timeout)
{
    return timeout != 0 && fails(EPOLL_WAIT) ? -1 : NEXT(epoll_wait)(set, events, count, timeout);
}

int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags)
{
    return fails(ACCEPT) ? -1 : NEXT(accept4)(socket, address, length, flags);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static __typeof__(&clock_gettime) next;
    if (!next)
        next = NEXT(clock_gettime);
    int result = next(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && control)
        time->tv_sec += atomic_load(&control->ahead);
    return result;
}
