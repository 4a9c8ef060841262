/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the program needs of the kernel's interface: types, headers of packets, helpers. Declared here, so that clang alone is
 * enough to build it. The kernel promises all of it (include/uapi/linux/bpf.h, if_ether.h, ip.h, ipv6.h, udp.h).
 */
#ifndef TURN_RELAY_KERNEL_H
#define TURN_RELAY_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;
/* In network order. */
typedef __u16 __be16;
typedef __u32 __be32;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define PACKED __attribute__((packed))
#define NULL ((void *)0)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define htons(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define htonl(x) ((__be32)__builtin_bswap32((__u32)(x)))
#else
#define htons(x) ((__be16)(x))
#define htonl(x) ((__be32)(x))
#endif
#define ntohs htons

/* How a map is described to the loader: by the types of these members. */
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
};

/* Elements of the map are allocated when they are added. */
#define BPF_F_NO_PREALLOC 1

enum xdp_action {
	XDP_ABORTED,
	XDP_DROP,
	XDP_PASS,
	XDP_TX,
	XDP_REDIRECT,
};

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

#define AF_INET 2
#define AF_INET6 10

struct bpf_fib_lookup {
	__u8 family;
	__u8 l4_protocol;
	__be16 sport;
	__be16 dport;
	/* In: length of the packet from its IP header on. */
	__u16 tot_len;
	/* In: where the packet comes from. Out: where it goes. */
	__u32 ifindex;
	/* In: TOS, or traffic class and flow label. */
	union {
		__u8 tos;
		__be32 flowinfo;
	};
	__u32 src[4];
	__u32 dst[4];
	__be16 vlan_proto;
	__be16 vlan_tci;
	__u8 smac[6];
	__u8 dmac[6];
};

enum {
	BPF_FIB_LKUP_RET_SUCCESS = 0,
	BPF_FIB_LKUP_RET_FWD_DISABLED = 5,
	BPF_FIB_LKUP_RET_NO_NEIGH = 7,
	BPF_FIB_LKUP_RET_FRAG_NEEDED = 8,
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*const bpf_fib_lookup)(void *ctx, struct bpf_fib_lookup *params, int size, __u32 flags) = (void *)69;
/* Nanoseconds of CLOCK_MONOTONIC, as of the last tick: a few milliseconds late, for a fraction of the cost. */
static __u64 (*const bpf_ktime_get_coarse_ns)(void) = (void *)160;

struct ethhdr {
	__u8 dest[6];
	__u8 source[6];
	__be16 proto;
} PACKED;

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define ETH_P_8021Q 0x8100

struct vlanhdr {
	__be16 tci;
	__be16 proto;
};

/* The VLAN's number in a tag, besides priorities. */
#define VLAN_ID 0x0fff

struct iphdr {
	__u8 version_ihl;
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

/* Reserved bit, more fragments, offset: everything but DF. */
#define IP_FRAGMENT 0xBFFF

struct ip6hdr {
	/* Version, traffic class, flow label. */
	__be32 first;
	__be16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	__be32 saddr[4];
	__be32 daddr[4];
};

#define IPPROTO_UDP 17

struct udphdr {
	__be16 source;
	__be16 dest;
	__be16 len;
	__u16 check;
};

#endif
