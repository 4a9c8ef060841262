// A system that refuses to merge datagrams, put before the C library (ld.so(8), LD_PRELOAD).
//
// Drivers without checksum offload refuse UDP_SEGMENT with EIO on kernels before 6.12, as paths through IPsec do on all. As from
// the kernel, what stands before a refused message is sent, and the refusal comes with the next call. Now and then a pending
// ICMP error is reported instead, as to any socket.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { SEGMENT = 103 };

static int merged(struct msghdr *message)
{
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control))
        if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == SEGMENT)
            return 1;
    return 0;
}

// TURNSERVER_TEST_MERGING is `refused`, or `partly-refused`: by every other socket only.
static int refuses(int socket)
{
    const char *wanted = getenv("TURNSERVER_TEST_MERGING");
    return wanted && (strcmp(wanted, "refused") == 0 || socket % 2 == 1);
}

int sendmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags)
{
    static atomic_uint calls;
    int (*next)(int, struct mmsghdr *, unsigned, int) = dlsym(RTLD_NEXT, "sendmmsg");
    if (atomic_fetch_add(&calls, 1) % 7 == 6) {
        errno = ECONNREFUSED;
        return -1;
    }
    unsigned accepted = 0;
    while (accepted < count && !(refuses(socket) && merged(&messages[accepted].msg_hdr)))
        accepted++;
    if (accepted == 0 && count > 0) {
        errno = EIO;
        return -1;
    }
    return next(socket, messages, accepted, flags);
}
