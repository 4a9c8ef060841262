use super::*;

/// 2026-11-30, a minute before midnight UTC.
const START: u64 = 1_796_083_140_000;
const BITS: HolderLimits = HolderLimits {
    allocations: None,
    unused: None,
    bits_per_second: Some(800_000),
    packets_per_second: None,
    new_peers_per_second: None,
    bytes_per_month: None,
};
const MONTH: HolderLimits = HolderLimits { bits_per_second: None, bytes_per_month: Some(1_000_000), ..BITS };

fn limiter(realm: RealmLimits, total: HolderLimits, workers: usize) -> Arc<Limiter> {
    let limits = Limits {
        total,
        realm: RealmLimits::default(),
        burst: Duration::from_millis(200),
        allocation_rate: None,
        state_directory: None,
        permissions_per_allocation: 1,
        channels_per_allocation: 1,
        connections_per_allocation: 1,
        unauthorized_rate: None,
        binding_rate: None,
        ipv4_prefix: 32,
        ipv6_prefix: 56,
    };
    Arc::new(Limiter::new(&limits, [("r".into(), realm)], workers))
}

fn subject(user: &str, tenant: Option<&str>) -> Subject {
    Subject { user: user.into(), realm: "r".into(), tenant: tenant.map(Into::into) }
}

fn allowance(limiter: &Arc<Limiter>, user: &str, tenant: Option<&str>) -> Arc<Allowance> {
    limiter.allowance(&subject(user, tenant), false, START).unwrap().expect("limits")
}

/// Floods every allowance, each on a worker of its own, for 10 s; the bytes that have passed.
fn flood(allowances: &[Arc<Allowance>]) -> Vec<u64> {
    let mut passed = vec![0; allowances.len()];
    for now in START..START + 10_000 {
        for (worker, allowance) in allowances.iter().enumerate() {
            for _ in 0..2 {
                if allowance.pass(worker, Direction::ToPeer, 1_000, now).is_ok() {
                    passed[worker] += 1_000;
                }
            }
        }
    }
    passed
}

/// 10 s at 100,000 bytes per second with a burst of 20,000.
fn is_exact(bytes: u64) -> bool {
    (1_010_000..=1_024_000).contains(&bytes)
}

#[test]
fn without_limits_there_is_nothing_to_ask() {
    let limiter = limiter(RealmLimits::default(), HolderLimits { allocations: Some(5), ..HolderLimits::default() }, 2);
    assert!(limiter.allowance(&subject("a", Some("t")), true, START).unwrap().is_none());
    assert!(!limiter.limits_data() && !limiter.limits_peers() && !limiter.counts_months());
}

#[test]
fn each_holder_is_held_to_its_own_rate_over_all_workers() {
    let of_allocation = limiter(RealmLimits { allocation: BITS, ..RealmLimits::default() }, HolderLimits::default(), 4);
    let each: Vec<_> = (0..4).map(|_| allowance(&of_allocation, "a", None)).collect();
    assert!(flood(&each).into_iter().all(is_exact));

    let of_user = limiter(RealmLimits { user: BITS, ..RealmLimits::default() }, HolderLimits::default(), 4);
    let users: Vec<_> = ["a", "b", "a", "b"].into_iter().map(|user| allowance(&of_user, user, None)).collect();
    let passed = flood(&users);
    assert!(is_exact(passed[0] + passed[2]) && is_exact(passed[1] + passed[3]), "{passed:?}");

    let of_tenant = limiter(RealmLimits { tenant: BITS, ..RealmLimits::default() }, HolderLimits::default(), 3);
    let tenants = [("a", "t"), ("b", "t"), ("c", "u")];
    let tenants: Vec<_> = tenants.into_iter().map(|(user, of)| allowance(&of_tenant, user, Some(of))).collect();
    let passed = flood(&tenants);
    assert!(is_exact(passed[0] + passed[1]) && is_exact(passed[2]), "{passed:?}");
    assert!(of_tenant.allowance(&subject("a", None), false, START).unwrap().is_none());

    for (realm, total) in [
        (RealmLimits { realm: BITS, ..RealmLimits::default() }, HolderLimits::default()),
        (RealmLimits::default(), BITS),
    ] {
        let all = limiter(realm, total, 8);
        let users: Vec<_> = (0..8).map(|user| allowance(&all, &user.to_string(), None)).collect();
        let passed: u64 = flood(&users).into_iter().sum();
        assert!(is_exact(passed), "{passed}");
    }
}

#[test]
fn what_one_limit_drops_no_other_counts() {
    let user = HolderLimits { bits_per_second: Some(8_000_000), ..BITS };
    let limiter = limiter(RealmLimits { user, ..RealmLimits::default() }, BITS, 1);
    let one = allowance(&limiter, "a", None);
    assert!(is_exact(flood(std::slice::from_ref(&one))[0]));
    let counts = limiter.counts();
    let of = |limit| counts.refused.iter().find(|(other, _)| *other == limit).unwrap().1;
    assert!(of(Limit(Kind::Bandwidth, Scope::Total)) > 18_000);
    assert_eq!(of(Limit(Kind::Bandwidth, Scope::User)), 0);
    assert_eq!(counts.accounts, 2);
    // Two buckets, of which less than a millisecond each is kept by the only worker.
    assert!(counts.spare[0] <= 8_000 + 800, "{:?}", counts.spare);
}

#[test]
fn a_bucket_is_not_filled_by_a_new_allocation() {
    let limiter = limiter(RealmLimits { user: BITS, ..RealmLimits::default() }, HolderLimits::default(), 1);
    let mut passed = 0;
    for now in START..START + 1_000 {
        let allowance = limiter.allowance(&subject("a", None), false, now).unwrap().expect("limits");
        while allowance.pass(0, Direction::ToPeer, 1_000, now).is_ok() {
            passed += 1_000;
        }
    }
    assert!((119_000..=122_000).contains(&passed), "{passed}");
}

#[test]
fn accounts_at_rest_make_room_and_the_month_remembers_them() {
    let user = HolderLimits { bits_per_second: Some(800_000), ..MONTH };
    let limiter = limiter(RealmLimits { user, ..RealmLimits::default() }, HolderLimits::default(), 2);
    let kept = allowance(&limiter, "kept", None);
    for user in 0..20_000u64 {
        let now = START + user;
        let used = limiter.allowance(&subject(&user.to_string(), None), false, now).unwrap().expect("limits");
        used.pass(1, Direction::ToClient, 7, now).unwrap();
    }
    kept.pass(0, Direction::ToPeer, 9, START + 20_000).unwrap();
    assert!(limiter.counts().accounts < 2 * FEW + 300, "{}", limiter.counts().accounts);
    let (month, counts) = limiter.month(START + 20_000);
    assert_eq!((month.to_string().as_str(), counts.len()), ("2026-11", 20_001));
    assert_eq!(counts.iter().map(|(_, bytes)| bytes).sum::<u64>(), 7 * 20_000 + 9);
    // Whoever comes back goes on with the count; a new month has none.
    let again = limiter.allowance(&subject("0", None), false, START + 20_000).unwrap().expect("limits");
    again.pass(0, Direction::ToPeer, 3, START + 20_000).unwrap();
    let of_first = |(_, counts): (Month, Vec<(Holder, u64)>)| {
        let first = Holder::User { realm: "r".into(), user: "0".into() };
        counts.into_iter().find(|(holder, _)| *holder == first).map(|(_, bytes)| bytes)
    };
    assert_eq!(of_first(limiter.month(START + 20_000)), Some(10));
    assert_eq!(limiter.month(START + 60_000).1, []);
    again.pass(0, Direction::ToPeer, 5, START + 60_001).unwrap();
    assert_eq!(of_first(limiter.month(START + 60_002)), Some(5));
}

#[test]
fn too_many_to_remember_lose_the_least() {
    let user = RealmLimits { user: MONTH, ..RealmLimits::default() };
    let limiter = limiter(user, HolderLimits::default(), 1);
    let holder = |user: usize| Holder::User { realm: "r".into(), user: user.to_string().into() };
    limiter.restore((0..MOST_RESTING + 3).map(|user| (holder(user), 1_000 - (user % 1_000) as u64)).collect(), START);
    let (_, counts) = limiter.month(START);
    assert_eq!(counts.len(), MOST_RESTING);
    assert!(counts.iter().filter(|(_, bytes)| *bytes == 1).count() == MOST_RESTING / 1_000 - 3);
}

#[test]
fn used_up_months_end_what_there_is_and_what_comes() {
    let limiter = limiter(RealmLimits { tenant: MONTH, ..RealmLimits::default() }, HolderLimits::default(), 1);
    let allowance = allowance(&limiter, "a", Some("t"));
    let passed = (0..2_000).filter(|_| allowance.pass(0, Direction::ToClient, 1_000, START).is_ok()).count();
    assert_eq!(passed, 1_000);
    assert_eq!(allowance.stretch(0, Direction::ToPeer, 9_999, START), Stretch::Over);
    // There is nothing to wait for.
    assert_eq!(allowance.wait_ms(0, Direction::ToPeer, 1, START), None);
    let refused = |user, tenant| limiter.allowance(&subject(user, tenant), false, START).map(|_| ());
    assert_eq!(refused("b", Some("t")), Err(Limit(Kind::Month, Scope::Tenant)));
    assert_eq!(refused("b", Some("u")), Ok(()));
    assert_eq!(limiter.allowance(&subject("b", Some("t")), false, START + 60_000).map(|_| ()), Ok(()));
}

#[test]
fn streams_wait_and_lose_nothing() {
    let limiter = limiter(RealmLimits { user: BITS, ..RealmLimits::default() }, HolderLimits::default(), 2);
    let allowances = [allowance(&limiter, "a", None), allowance(&limiter, "a", None)];
    let (mut passed, mut resume) = ([0u64; 2], [START; 2]);
    for now in START..START + 10_000 {
        for (worker, allowance) in allowances.iter().enumerate() {
            while resume[worker] <= now {
                match allowance.stretch(worker, Direction::ToClient, 65_536, now) {
                    Stretch::Bytes(most) => {
                        // What flows in within 20 ms.
                        assert_eq!(most, 2_000);
                        allowance.pass_stream(worker, Direction::ToClient, most, now);
                        passed[worker] += most as u64;
                    }
                    Stretch::NotBefore(time) => {
                        assert!(time >= now + SHORTEST_WAIT_MS);
                        resume[worker] = time;
                    }
                    Stretch::Over => panic!("nothing is over"),
                }
            }
        }
    }
    assert!((1_015_000..=1_024_000).contains(&passed.iter().sum::<u64>()), "{passed:?}");
    assert_eq!(allowances[0].wait_ms(0, Direction::ToPeer, 1_000, START), None);
}

/// What a limiter with these limits is told by a reload.
fn renew(limiter: &Limiter, user: HolderLimits, burst: u64) -> bool {
    let realm = RealmLimits { user, ..RealmLimits::default() };
    let limits = Limits {
        total: HolderLimits::default(),
        realm: RealmLimits::default(),
        burst: Duration::from_millis(burst),
        allocation_rate: None,
        state_directory: None,
        permissions_per_allocation: 1,
        channels_per_allocation: 1,
        connections_per_allocation: 1,
        unauthorized_rate: None,
        binding_rate: None,
        ipv4_prefix: 32,
        ipv6_prefix: 56,
    };
    limiter.renew(&limits, [("r".into(), realm)], START)
}

#[test]
fn other_limits_have_new_accounts_and_the_bytes_of_the_month_stay() {
    let limiter = limiter(RealmLimits { user: MONTH, ..RealmLimits::default() }, HolderLimits::default(), 1);
    let before = allowance(&limiter, "a", None);
    assert_eq!(before.pass(0, Direction::ToPeer, 600_000, START), Ok(()));
    // The same limits are the same accounts.
    assert!(!renew(&limiter, MONTH, 200));
    assert!(Arc::ptr_eq(&allowance(&limiter, "a", None).accounts[0], &before.accounts[0]));
    assert!(renew(&limiter, HolderLimits { bytes_per_month: Some(700_000), ..MONTH }, 200));
    let after = allowance(&limiter, "a", None);
    assert!(!Arc::ptr_eq(&after.accounts[0], &before.accounts[0]));
    assert_eq!(after.pass(0, Direction::ToPeer, 100_000, START), Ok(()));
    assert!(limiter.allowance(&subject("a", None), false, START).is_err(), "it is used up");
    assert!(limiter.renewed_allowance(&subject("a", None), false, START).is_some(), "for who is there");
    // Without a limit nothing is asked for, and what was counted is not forgotten.
    assert!(renew(&limiter, HolderLimits::default(), 200));
    assert!(limiter.allowance(&subject("a", None), false, START).unwrap().is_none());
    let counted: Vec<u64> = limiter.month(START).1.into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(counted, [700_000]);
}
