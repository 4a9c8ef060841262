/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Relays ChannelData between UDP clients and peers (RFC 8656 section 12) where packets enter the host.
 *
 * User space is the authority. It describes every binding by two flows: what the client sends in the channel and where that
 * goes, and what the peer sends and where that goes. This program rewrites a packet that belongs to a living flow and sends it
 * on; everything else, and everything that is in any way unusual, it passes up unchanged. It never refuses anything: what is
 * not relayed here is relayed, answered or dropped by user space, as if this program was not there.
 *
 * Nothing of a packet is changed before it is certain that it can be sent on.
 */
#include "kernel.h"

/* The kernel lends the route lookup only to programs that may be used under the GPL; ours may, besides the MIT licence. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* ---- What user space and the program share; see layout.rs ---- */

/* What a UDP port of this host may be. */
#define PORT_LISTENER 1
#define PORT_RELAY 2

struct ports {
	__u8 kind[65536];
};

/* A packet as it comes in. IPv4 addresses stand in the first word. */
struct flow_key {
	__u32 src[4];
	__u32 dst[4];
	__be16 sport;
	__be16 dport;
	/* The channel that it is sent in; 0 for what peers send. */
	__be16 channel;
	/* 4 or 6. */
	__u16 version;
};

/* The destination is a relayed address of this server. */
#define FLOW_HAIRPIN 1
/* The source is one: what comes by the wire is forged, and only what arrives from another flow belongs here. */
#define FLOW_INSIDE 2

/* What becomes of it. A place in the array belongs to one flow until long after that has ended. */
struct flow {
	/* Of CLOCK_MONOTONIC, in nanoseconds; 0 ends the flow. */
	__u64 deadline;
	struct flow_key key;
	__u32 src[4];
	__u32 dst[4];
	__be16 sport;
	__be16 dport;
	/* The channel that it is passed on in; 0 towards peers. */
	__be16 channel;
	__u8 version;
	__u8 flags;
	/* Sums in ones' complement (RFC 1071): the incoming pseudo header without its length; and what is added to the checksum
	 * by other addresses, ports and channel numbers. */
	__u16 pseudo;
	__u16 delta;
	__u32 reserved;
};

struct count {
	__u64 packets;
	__u64 bytes;
};

/* An interface that may be sent from: the one that the program is attached to, and the VLAN on it. */
struct interface {
	__u32 device;
	/* 0 for none. */
	__u16 vlan;
	/* Programs that differ in this do not send to each other. */
	__u8 mode;
	__u8 reserved;
};

/* Where packets come in: a device, and the VLAN that their tag says, 0 for none. */
struct door_key {
	__u32 device;
	__u16 vlan;
	__u16 reserved;
};

/* An interface that stands there. */
struct door {
	__u8 mac[6];
	__u8 mode;
	__u8 reserved;
};

/* Why a packet of ours went up, and what was lost here. */
enum event {
	EVENT_UNBOUND,
	EVENT_EXPIRED,
	EVENT_FRAGMENT,
	EVENT_LENGTH,
	EVENT_CHECKSUM,
	EVENT_HOPS,
	EVENT_ROUTE,
	EVENT_FORWARDING,
	EVENT_NEIGHBOUR,
	EVENT_MTU,
	EVENT_INTERFACE,
	EVENT_HEADROOM,
	/* The only drop: a packet that was changed already and cannot be written any more. */
	EVENT_LOST,
	EVENTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct ports);
	__uint(max_entries, 1);
} PORTS SEC(".maps");

/* Where in FLOWS a packet's flow stands. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow_key);
	__type(value, __u32);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} PLACES SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, 32768);
} FLOWS SEC(".maps");

/* By place in FLOWS. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct count);
	__uint(max_entries, 32768);
} COUNTS SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, EVENTS);
} EVENT_COUNTS SEC(".maps");

/* By index of the interface that a route leads to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct interface);
	__uint(max_entries, 256);
} INTERFACES SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct door_key);
	__type(value, struct door);
	__uint(max_entries, 256);
} DOORS SEC(".maps");

/* ---- The program ---- */

INLINE int up(__u32 event)
{
	__u64 *count = bpf_map_lookup_elem(&EVENT_COUNTS, &event);
	if (count)
		*count += 1;
	return XDP_PASS;
}

INLINE void count(__u32 place, __u32 bytes)
{
	struct count *sum = bpf_map_lookup_elem(&COUNTS, &place);
	if (sum) {
		sum->packets += 1;
		sum->bytes += bytes;
	}
}

INLINE __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A pointer into the packet whose offset the compiler knows no more. Without CAP_PERFMON the verifier lets only constants be added
 * to one; of two constants that depend on the way here the compiler would make a variable. */
INLINE void *settled(void *pointer)
{
	asm volatile("" : "+r"(pointer));
	return pointer;
}

/* The sum over an IPv4 header without options, which is 0xffff if that is as it was sent. */
INLINE __u16 header_sum(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < 10; i++)
		sum += words[i];
	return fold(sum);
}

/* The living flow of this key, or none. `place` is where it stands; `inside` tells what another flow has made from what comes
 * by the wire. */
INLINE struct flow *find(const struct flow_key *key, int inside, __u32 *place, __u32 *event)
{
	__u32 *at = bpf_map_lookup_elem(&PLACES, key);
	struct flow *flow;

	*event = EVENT_UNBOUND;
	if (!at)
		return NULL;
	*place = *at;
	flow = bpf_map_lookup_elem(&FLOWS, place);
	if (!flow)
		return NULL;
	/* An element of a hash map may be used for another key while it is being read here: then this is another's flow. The
	 * array's places are not used again for so long that what has been found cannot change any more. */
	if (flow->key.src[0] != key->src[0] || flow->key.src[1] != key->src[1] || flow->key.src[2] != key->src[2] ||
	    flow->key.src[3] != key->src[3] || flow->key.dst[0] != key->dst[0] || flow->key.dst[1] != key->dst[1] ||
	    flow->key.dst[2] != key->dst[2] || flow->key.dst[3] != key->dst[3] || flow->key.sport != key->sport ||
	    flow->key.dport != key->dport || flow->key.channel != key->channel || flow->key.version != key->version)
		return NULL;
	if ((flow->flags & FLOW_INSIDE) && !inside)
		return NULL;
	*event = EVENT_EXPIRED;
	if (flow->deadline <= bpf_ktime_get_coarse_ns())
		return NULL;
	return flow;
}

/* A packet, taken apart. */
struct packet {
	struct flow_key key;
	struct udphdr *udp;
	/* Length of the headers up to UDP's. */
	__u32 before_udp;
	/* Of the datagram without the UDP header. */
	__u32 payload;
	/* Kind of its destination port. */
	__u32 port;
	/* Of its tag; 0 for none. */
	__u16 vlan;
	__u16 check;
	__u8 class;
	__u8 hops;
	__u8 dest[6];
};

/* Takes a packet apart. XDP_TX means that it may be one of ours; everything else is the verdict. */
INLINE int parse(void *data, void *end, struct packet *packet)
{
	struct ethhdr *eth = data;
	struct udphdr *udp;
	struct ports *ports;
	void *network = settled(eth + 1);
	__u32 zero = 0, before = sizeof(*eth), total;
	__be16 proto, fragment = 0;
	/* IPv6 has no sum over its header. */
	__u16 sum = 0xffff;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	/* Neither broadcast nor multicast. */
	if (eth->dest[0] & 1)
		return XDP_PASS;
	__builtin_memcpy(packet->dest, eth->dest, 6);
	proto = eth->proto;
	if (proto == htons(ETH_P_8021Q)) {
		struct vlanhdr *tag = (void *)(eth + 1);
		if ((void *)(tag + 1) > end)
			return XDP_PASS;
		packet->vlan = ntohs(tag->tci) & VLAN_ID;
		proto = tag->proto;
		before += sizeof(*tag);
		network = settled(tag + 1);
	}

	if (proto == htons(ETH_P_IP)) {
		struct iphdr *ip = network;
		if ((void *)(ip + 1) > end)
			return XDP_PASS;
		/* No options. */
		if (ip->version_ihl != 0x45 || ip->protocol != IPPROTO_UDP)
			return XDP_PASS;
		fragment = ip->frag_off & htons(IP_FRAGMENT);
		/* Only a first fragment has ports. */
		if (fragment & htons(0x1fff))
			return XDP_PASS;
		sum = header_sum(ip);
		packet->key.version = 4;
		packet->key.src[0] = ip->saddr;
		packet->key.dst[0] = ip->daddr;
		packet->class = ip->tos;
		packet->hops = ip->ttl;
		total = ntohs(ip->tot_len);
		if (total < sizeof(*ip))
			return XDP_PASS;
		total -= sizeof(*ip);
		before += sizeof(*ip);
		udp = settled(ip + 1);
	} else if (proto == htons(ETH_P_IPV6)) {
		struct ip6hdr *ip = network;
		__u32 first;
		if ((void *)(ip + 1) > end)
			return XDP_PASS;
		first = htonl(ip->first);
		/* No extension headers, hence no fragments. */
		if (first >> 28 != 6 || ip->next_header != IPPROTO_UDP)
			return XDP_PASS;
		packet->key.version = 6;
		__builtin_memcpy(packet->key.src, ip->saddr, 16);
		__builtin_memcpy(packet->key.dst, ip->daddr, 16);
		packet->class = first >> 20;
		packet->hops = ip->hop_limit;
		total = ntohs(ip->payload_len);
		before += sizeof(*ip);
		udp = settled(ip + 1);
	} else {
		return XDP_PASS;
	}

	if ((void *)(udp + 1) > end)
		return XDP_PASS;
	ports = bpf_map_lookup_elem(&PORTS, &zero);
	if (!ports)
		return XDP_PASS;
	packet->port = ports->kind[ntohs(udp->dest)];
	if (!packet->port)
		return XDP_PASS;
	/* From here on it is to a port of ours. */
	if (sum != 0xffff)
		return up(EVENT_CHECKSUM);
	if (fragment)
		return up(EVENT_FRAGMENT);
	/* What IP and UDP say must agree. Whether it is there is seen when it is sent on. */
	if (ntohs(udp->len) != total || total < sizeof(*udp))
		return up(EVENT_LENGTH);
	packet->key.sport = udp->source;
	packet->key.dport = udp->dest;
	packet->check = udp->check;
	packet->udp = udp;
	packet->before_udp = before;
	packet->payload = total - sizeof(*udp);
	return XDP_TX;
}

SEC("xdp")
int turn_relay(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet packet = {};
	struct bpf_fib_lookup fib = {};
	struct door_key door = {};
	struct interface *out;
	struct door *in;
	struct flow *flow = NULL, *last;
	struct ethhdr *eth;
	struct udphdr *udp;
	__u32 place = 0, last_place = 0, event = EVENT_UNBOUND;
	/* Bytes of application data; lengths of UDP datagram and headers that are to be. */
	__u32 bytes, udp_len, header, sum;
	__u16 check, vlan;
	__u8 version;
	__be16 out_channel;
	int verdict, shift, behind;
	void *at;

	verdict = parse(data, end, &packet);
	if (verdict != XDP_TX)
		return verdict;
	bytes = packet.payload;

	if (packet.port & PORT_RELAY)
		flow = find(&packet.key, 0, &place, &event);
	if (!flow && packet.port & PORT_LISTENER) {
		__be16 *head = (void *)(packet.udp + 1);
		if ((void *)(head + 2) > end || packet.payload < 4)
			return XDP_PASS;
		/* STUN, DTLS and all else (RFC 7983). */
		if ((*(__u8 *)head & 0xc0) != 0x40)
			return XDP_PASS;
		/* Padding is allowed, but nobody sends it. */
		if (ntohs(head[1]) + 4 != packet.payload)
			return up(EVENT_LENGTH);
		bytes = packet.payload - 4;
		packet.key.channel = head[0];
		flow = find(&packet.key, 0, &place, &event);
	}
	if (!flow)
		return up(event);

	door.device = ctx->ingress_ifindex;
	door.vlan = packet.vlan;
	in = bpf_map_lookup_elem(&DOORS, &door);
	/* Nor what a switch sends everywhere because it does not know better. */
	if (!in || *(__u32 *)packet.dest != *(__u32 *)in->mac || *(__u16 *)(packet.dest + 4) != *(__u16 *)(in->mac + 4))
		return up(EVENT_INTERFACE);

	/* A checksum that is only the pseudo header's is to be completed by hardware: the packet comes from this very host, or is
	 * several that were merged. */
	if (packet.check) {
		if (fold(flow->pseudo + htons(packet.payload + 8)) == packet.check)
			return up(EVENT_CHECKSUM);
	} else if (packet.key.version == 6) {
		return up(EVENT_CHECKSUM);
	}
	if (packet.hops <= 1)
		return up(EVENT_HOPS);

	last = flow;
	last_place = place;
	sum = flow->delta;
	if (flow->flags & FLOW_HAIRPIN) {
		/* What arrives at the other relayed address. */
		struct flow_key key = {};
		__builtin_memcpy(key.src, flow->src, 16);
		__builtin_memcpy(key.dst, flow->dst, 16);
		key.sport = flow->sport;
		key.dport = flow->dport;
		key.version = flow->version;
		last = find(&key, 1, &last_place, &event);
		if (!last)
			return up(event);
		sum += last->delta;
	}
	version = last->version;
	out_channel = last->channel;
	/* IPv6 needs a checksum, and IPv4 may come without. */
	if (!packet.check && version == 6)
		return up(EVENT_CHECKSUM);

	udp_len = sizeof(*udp) + bytes + (out_channel ? 4 : 0);
	/* The length stands in the pseudo header and in the header; the channel's own counts where there is one. */
	sum += 2 * (__u32)htons(udp_len) + 2 * (__u32)(__u16)~htons(packet.payload + 8);
	if (packet.key.channel)
		sum += (__u16)~htons(bytes);
	if (out_channel)
		sum += htons(bytes);
	check = 0;
	if (packet.check) {
		check = ~fold(sum + (__u16)~packet.check);
		if (!check)
			check = 0xffff;
	}

	fib.l4_protocol = IPPROTO_UDP;
	fib.sport = last->sport;
	fib.dport = last->dport;
	/* As if this host sent it by itself: from the loopback interface. */
	fib.ifindex = 1;
	if (version == 4) {
		fib.family = AF_INET;
		fib.tos = packet.class & 0xfc;
		fib.tot_len = sizeof(struct iphdr) + udp_len;
		fib.src[0] = last->src[0];
		fib.dst[0] = last->dst[0];
	} else {
		fib.family = AF_INET6;
		fib.flowinfo = htonl((__u32)packet.class << 20);
		fib.tot_len = sizeof(struct ip6hdr) + udp_len;
		__builtin_memcpy(fib.src, last->src, 16);
		__builtin_memcpy(fib.dst, last->dst, 16);
	}
	switch (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return up(EVENT_NEIGHBOUR);
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return up(EVENT_MTU);
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return up(EVENT_FORWARDING);
	default:
		return up(EVENT_ROUTE);
	}

	out = bpf_map_lookup_elem(&INTERFACES, &fib.ifindex);
	if (!out || in->mode != out->mode)
		return up(EVENT_INTERFACE);
	vlan = out->vlan;

	header = sizeof(*eth) + (vlan ? 4 : 0) + (version == 4 ? sizeof(struct iphdr) : sizeof(struct ip6hdr)) +
		 (out_channel ? 4 : 0);
	shift = (int)(packet.before_udp + (packet.key.channel ? 4 : 0)) - (int)header;
	/* What another program has put before the packet would be moved with its beginning. */
	if ((void *)(long)ctx->data_meta + 1 <= (void *)(long)ctx->data)
		return up(EVENT_HEADROOM);
	/* All that the headers speak of must be there, and what is behind it in the frame is padding. Lengths that vary cannot be
	 * compared with the packet's end without CAP_PERFMON. But its beginning can be moved so far that what remains is as long as
	 * an Ethernet header, the least that the kernel leaves, and from there to where it is to be. */
	behind = packet.before_udp + sizeof(*udp) + packet.payload - sizeof(*eth);
	if (bpf_xdp_adjust_head(ctx, behind))
		return up(EVENT_LENGTH);
	if (bpf_xdp_adjust_head(ctx, shift - behind)) {
		/* There is room where it was. */
		bpf_xdp_adjust_head(ctx, -behind);
		return up(EVENT_HEADROOM);
	}

	/* All headers are written anew. There is room for them: what was there has moved by the difference. */
	at = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = at;
	if ((void *)(eth + 1) > end)
		goto lost;
	__builtin_memcpy(eth->dest, fib.dmac, 6);
	__builtin_memcpy(eth->source, fib.smac, 6);
	at = eth + 1;
	if (vlan) {
		struct vlanhdr *tag = at;
		if ((void *)(tag + 1) > end)
			goto lost;
		eth->proto = htons(ETH_P_8021Q);
		tag->tci = htons(vlan);
		tag->proto = version == 4 ? htons(ETH_P_IP) : htons(ETH_P_IPV6);
		at = tag + 1;
	} else {
		eth->proto = version == 4 ? htons(ETH_P_IP) : htons(ETH_P_IPV6);
	}
	if (version == 4) {
		struct iphdr *ip = at;
		__u32 ip_sum;
		if ((void *)(ip + 1) > end)
			goto lost;
		ip->version_ihl = 0x45;
		ip->tos = packet.class;
		ip->tot_len = htons(sizeof(*ip) + udp_len);
		/* It may be fragmented further on, as what user space sends; nothing else has the same identification soon. */
		ip->id = bpf_get_prandom_u32();
		ip->frag_off = 0;
		ip->ttl = packet.hops - 1;
		ip->protocol = IPPROTO_UDP;
		ip->saddr = last->src[0];
		ip->daddr = last->dst[0];
		ip_sum = htons(0x4500 | packet.class) + ip->tot_len + ip->id + htons(ip->ttl << 8 | IPPROTO_UDP);
		ip_sum += (ip->saddr & 0xffff) + (ip->saddr >> 16) + (ip->daddr & 0xffff) + (ip->daddr >> 16);
		ip->check = ~fold(ip_sum);
		at = ip + 1;
	} else {
		struct ip6hdr *ip = at;
		if ((void *)(ip + 1) > end)
			goto lost;
		/* A flow label of 0: the incoming one is not the relay's (RFC 8656 section 13.2). */
		ip->first = htonl(6u << 28 | (__u32)packet.class << 20);
		ip->payload_len = htons(udp_len);
		ip->next_header = IPPROTO_UDP;
		ip->hop_limit = packet.hops - 1;
		__builtin_memcpy(ip->saddr, last->src, 16);
		__builtin_memcpy(ip->daddr, last->dst, 16);
		at = ip + 1;
	}
	udp = at;
	if ((void *)(udp + 1) > end)
		goto lost;
	udp->source = last->sport;
	udp->dest = last->dport;
	udp->len = htons(udp_len);
	udp->check = check;
	if (out_channel) {
		__be16 *head = (void *)(udp + 1);
		if ((void *)(head + 2) > end)
			goto lost;
		head[0] = out_channel;
		head[1] = htons(bytes);
	}

	count(place, bytes);
	if (last_place != place)
		count(last_place, bytes);
	if (out->device == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(out->device, 0);

lost:
	up(EVENT_LOST);
	return XDP_DROP;
}
