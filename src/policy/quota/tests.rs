use super::*;
use proptest::prelude::*;

fn subject(user: &str, tenant: Option<&str>) -> Subject {
    Subject { user: user.into(), realm: "r".into(), tenant: tenant.map(Into::into) }
}

fn quota(allocations: impl Into<Option<u32>>, unused: impl Into<Option<u32>>) -> HolderLimits {
    HolderLimits { allocations: allocations.into(), unused: unused.into(), ..HolderLimits::default() }
}

/// A book with the limits that it is kept by.
struct Book(Quotas, RealmLimits, HolderLimits);

impl Book {
    fn new(realm: RealmLimits, total: HolderLimits) -> Self {
        Self(Quotas::default(), realm, total)
    }

    fn take(&mut self, subject: &Subject) -> Result<(), Limit> {
        self.0.try_take(subject, &self.1, &self.2).map(drop)
    }

    fn begin_use(&mut self, subject: &Subject) -> Result<(), Limit> {
        self.0.try_use(subject, Apart::new(subject, &self.1, &self.2), &self.1, &self.2)
    }

    fn give_back(&mut self, subject: &Subject, used: bool) {
        let apart = if used { Apart::default() } else { Apart::new(subject, &self.1, &self.2) };
        self.0.give_back(subject, apart);
    }

    fn total(&self) -> Held {
        self.0.held_by(&Holder::Total)
    }

    fn of_user(&self, user: &str) -> Held {
        self.0.held_by(&Holder::User { realm: "r".into(), user: user.into() })
    }
}

const ALLOCATIONS_OF_USER: Result<(), Limit> = Err(Limit(Kind::Allocations, Scope::User));
const UNUSED_OF_USER: Result<(), Limit> = Err(Limit(Kind::Unused, Scope::User));

#[test]
fn h05_a_user_stops_at_the_quota_and_others_do_not() {
    let mut book = Book::new(RealmLimits { user: quota(2, None), ..RealmLimits::default() }, quota(3, None));
    let [a, b, c] = ["a", "b", "c"].map(|user| subject(user, None));
    assert_eq!(book.take(&a), Ok(()));
    assert_eq!(book.take(&a), Ok(()));
    assert_eq!(book.take(&a), ALLOCATIONS_OF_USER);
    assert_eq!(book.take(&b), Ok(()));
    assert_eq!(book.take(&c), Err(Limit(Kind::Allocations, Scope::Total)));
    book.give_back(&a, false);
    assert_eq!(book.take(&c), Ok(()));
    // Without a quota of unused ones, all count as used.
    assert_eq!(book.begin_use(&c), Ok(()));
    book.give_back(&c, true);
    assert_eq!((book.of_user("a").used, book.of_user("c").used, book.total().used), (1, 0, 2));
}

#[test]
fn a_quota_of_nothing_serves_nobody() {
    let nothing = quota(0, None);
    let user = RealmLimits { user: nothing, ..RealmLimits::default() };
    assert_eq!(Book::new(user, HolderLimits::default()).take(&subject("a", None)), ALLOCATIONS_OF_USER);
    let total = Book::new(RealmLimits::default(), nothing).take(&subject("a", None));
    assert_eq!(total, Err(Limit(Kind::Allocations, Scope::Total)));
}

#[test]
fn tenants_and_realms_have_quotas_of_their_own() {
    let limits = RealmLimits { tenant: quota(2, None), realm: quota(4, None), ..RealmLimits::default() };
    let mut book = Book::new(limits, HolderLimits::default());
    let take = |book: &mut Book, user: &str, tenant| book.take(&subject(user, tenant));
    assert_eq!(take(&mut book, "a", Some("t1")), Ok(()));
    assert_eq!(take(&mut book, "b", Some("t1")), Ok(()));
    assert_eq!(take(&mut book, "c", Some("t1")), Err(Limit(Kind::Allocations, Scope::Tenant)));
    assert_eq!(take(&mut book, "c", Some("t2")), Ok(()));
    assert_eq!(take(&mut book, "d", None), Ok(()));
    assert_eq!(take(&mut book, "e", None), Err(Limit(Kind::Allocations, Scope::Realm)));
    let elsewhere = Subject { realm: "other".into(), ..subject("a", None) };
    assert_eq!(book.take(&elsewhere), Ok(()));
    assert_eq!(book.total().used, 5);
}

/// A client gathers eight allocations, uses one and lets the others go; its user may use two at once.
#[test]
fn gathering_is_counted_apart() {
    let mut book = Book::new(RealmLimits { user: quota(2, 10), ..RealmLimits::default() }, HolderLimits::default());
    let user = subject("a", None);
    for call in 0..2 {
        (0..8).for_each(|_| assert_eq!(book.take(&user), Ok(())));
        assert_eq!(book.begin_use(&user), Ok(()));
        (0..7).for_each(|_| book.give_back(&user, false));
        assert_eq!(book.of_user("a"), Held { used: call + 1, unused: 0 });
    }
    assert_eq!(book.take(&user), ALLOCATIONS_OF_USER);
    book.give_back(&user, true);
    (0..10).for_each(|_| assert_eq!(book.take(&user), Ok(())));
    assert_eq!(book.take(&user), UNUSED_OF_USER);
    assert_eq!(book.begin_use(&user), Ok(()));
    // What has become one too many while it was unused is not used.
    assert_eq!(book.begin_use(&user), ALLOCATIONS_OF_USER);
    assert_eq!(book.of_user("a"), Held { used: 2, unused: 9 });
}

/// A reload gives a user a quota of unused allocations, or takes it away.
#[test]
fn an_allocation_is_given_back_as_it_was_counted() {
    let with = |unused: Option<u32>| RealmLimits { user: quota(2, unused), ..RealmLimits::default() };
    let (user, none) = (subject("a", None), HolderLimits::default());
    for limits in [[None, Some(5)], [Some(5), None]] {
        let mut quotas = Quotas::default();
        let [before, after] = limits.map(with);
        let apart = [(); 2].map(|()| quotas.try_take(&user, &before, &none).unwrap());
        quotas.try_use(&user, apart[0], &after, &none).unwrap();
        quotas.give_back(&user, Apart::default());
        quotas.give_back(&user, apart[1]);
        assert_eq!(quotas.held_by(&Holder::Total), Held::default());
        assert!(quotas.holders.is_empty());
    }
}

#[test]
fn memory_returns_with_the_last_allocation() {
    let mut book = Book::new(RealmLimits::default(), HolderLimits::default());
    for user in 0..1000 {
        book.take(&subject(&user.to_string(), None)).unwrap();
    }
    for user in 0..1000 {
        book.give_back(&subject(&user.to_string(), None), false);
    }
    assert_eq!((book.total(), book.0.holders.len(), book.0.holders.capacity()), (Held::default(), 0, 0));
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_books(
        per_user in proptest::option::of(0u32..4),
        unused in proptest::option::of(0u32..4),
        in_total in proptest::option::of(0u32..8),
        steps in proptest::collection::vec((0u8..3, 0usize..5), 0..200),
    ) {
        let limits = RealmLimits { user: quota(per_user, unused), ..RealmLimits::default() };
        let mut book = Book::new(limits, quota(in_total, None));
        // By user: used, unused.
        let mut model = [[0u32; 2]; 5];
        for (step, user) in steps {
            let name = subject(&user.to_string(), None);
            let total: u32 = model.iter().flatten().sum();
            let [used, waiting] = model[user];
            let full = per_user.is_some_and(|limit| used >= limit);
            match step {
                0 => {
                    let expected = if in_total.is_some_and(|limit| total >= limit) {
                        Err(Limit(Kind::Allocations, Scope::Total))
                    } else if full {
                        ALLOCATIONS_OF_USER
                    } else if unused.is_some_and(|limit| waiting >= limit) {
                        UNUSED_OF_USER
                    } else {
                        model[user][usize::from(unused.is_some())] += 1;
                        Ok(())
                    };
                    prop_assert_eq!(book.take(&name), expected);
                }
                1 if waiting > 0 => {
                    let expected = if full { ALLOCATIONS_OF_USER } else { Ok(()) };
                    if !full {
                        model[user] = [used + 1, waiting - 1];
                    }
                    prop_assert_eq!(book.begin_use(&name), expected);
                }
                2 if used + waiting > 0 => {
                    book.give_back(&name, waiting == 0);
                    model[user] = if waiting > 0 { [used, waiting - 1] } else { [used - 1, 0] };
                }
                _ => {}
            }
            prop_assert_eq!(book.total().used, model.iter().flatten().sum::<u32>());
            let held = book.of_user(&user.to_string());
            prop_assert_eq!([held.used, held.unused], model[user]);
            let holders = model.iter().filter(|held| **held != [0, 0]).count();
            let others = if holders > 0 { 2 } else { 0 };
            prop_assert_eq!(book.0.holders.len(), holders + others);
        }
    }
}
