//! What connections have sent and received, whether they live or not, each byte once.
//!
//! A window's growth is that of connections that live, each against what was told of it last, and what those that ended in it
//! had done altogether, minus what was told of them while they lived. The kernel adds up those that ended, so the ledger only
//! knows how much was told of those that are gone: a debt of their account, which its ends pay. The kernel's two tables are
//! read one after the other, so a connection that ends in between is in neither (they are read in that order, so it is never in
//! both): then its end is in the next window. A debt that no end has paid by then is forgotten, for the end was missed.

use crate::sorted::SortedMap;

use bpf_programs::events::tcp::{SeriesKey, Traffic};

/// Whose: the bytes of a [`SeriesKey`] without an error.
pub type Account = [u8; SeriesKey::SIZE];

/// Of bytes and segments. See [`AMOUNTS`].
pub type Amounts = [u64; AMOUNTS];

/// Bytes sent and received; segments sent again, sent, and received.
pub const AMOUNTS: usize = 5;

/// A window's growth by account, with the name of the process.
pub type Told = SortedMap<Account, ([u8; 16], Amounts)>;

/// What connections that ended had done.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Whose they were.
    pub account: Account,
    /// Name of the process.
    pub comm: [u8; 16],
    /// All that they ever did.
    pub amounts: Amounts,
}

/// What a connection that lives has done so far.
#[derive(Debug, Clone, Copy)]
pub struct Lives {
    /// Its socket, and when it began: together, no other has them.
    pub connection: (u64, u64),
    /// As of [`Ended`].
    pub so_far: Ended,
    /// Smoothed round-trip time; 0 where none was measured.
    pub rtt_us: u32,
}

/// What a connection has done.
pub fn traffic_amounts(traffic: &Traffic) -> Amounts {
    let Traffic { sent, received, retransmits, segments_sent, segments_received, .. } = *traffic;
    [sent, received, retransmits.into(), segments_sent.into(), segments_received.into()]
}

/// The accounts.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Of the connections that lived when they were looked at last: what was told.
    told: SortedMap<(u64, u64), (Account, Amounts)>,
    /// Of connections that are gone since this window and since the last.
    debts: [SortedMap<Account, Amounts>; 2],
    /// Growth from before the table of connections was emptied.
    carried: Told,
}

impl Ledger {
    /// Enters a window, and takes out what it brought.
    pub fn enter(&mut self, ended: impl Iterator<Item = Ended>, living: impl Iterator<Item = Lives>) -> Told {
        self.debts.swap(0, 1);
        let [fresh, _] = &mut self.debts;
        fresh.clear();
        self.grow(living);
        let mut window = std::mem::take(&mut self.carried);
        for mut ended in ended {
            // The older ones first.
            for debts in self.debts.iter_mut().rev() {
                if let Some(debt) = debts.get_mut(&ended.account) {
                    pay(debt, &mut ended.amounts);
                }
            }
            add(&mut window, &ended);
        }
        window.retain(|_, (_, amounts)| *amounts != [0; AMOUNTS]);
        window
    }

    /// Enters what connections that live have done, before the table of connections is emptied: none of them lives on as far
    /// as the ledger knows, and none of them is seen to end.
    pub fn close(&mut self, living: impl Iterator<Item = Lives>) {
        self.grow(living);
        self.told.clear();
    }

    fn grow(&mut self, living: impl Iterator<Item = Lives>) {
        let mut gone = std::mem::take(&mut self.told);
        for lives in living {
            let Lives { connection, so_far: Ended { account, comm, amounts }, .. } = lives;
            let last = gone.remove(&connection).map_or([0; AMOUNTS], |(_, last)| last);
            let mut growth = [0; AMOUNTS];
            let mut told = last;
            for ((growth, told), now) in growth.iter_mut().zip(&mut told).zip(amounts) {
                *growth = now.saturating_sub(*told);
                *told = now.max(*told);
            }
            add(&mut self.carried, &Ended { account, comm, amounts: growth });
            self.told.insert(connection, (account, told));
        }
        let [fresh, _] = &mut self.debts;
        for (_, (account, amounts)) in gone {
            let debt = fresh.entry(account).or_default();
            debt.iter_mut().zip(amounts).for_each(|(debt, n)| *debt = debt.saturating_add(n));
        }
    }
}

fn pay(debt: &mut Amounts, amounts: &mut Amounts) {
    for (debt, amount) in debt.iter_mut().zip(amounts) {
        let paid = (*debt).min(*amount);
        *debt -= paid;
        *amount -= paid;
    }
}

fn add(to: &mut Told, more: &Ended) {
    let (comm, amounts) = to.entry(more.account).or_default();
    *comm = more.comm;
    amounts.iter_mut().zip(more.amounts).for_each(|(to, n)| *to = to.saturating_add(n));
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Account = [1; SeriesKey::SIZE];

    fn account(amounts: [u64; 3]) -> Ended {
        let [sent, received, again] = amounts;
        Ended { account: A, comm: [0; 16], amounts: [sent, received, again, 0, 0] }
    }

    /// Connections by their sockets.
    fn lives(living: &[(u64, [u64; 3])]) -> impl Iterator<Item = Lives> + '_ {
        living.iter().map(|(socket, amounts)| Lives {
            connection: (*socket, 1),
            so_far: account(*amounts),
            rtt_us: 0,
        })
    }

    fn enter(ledger: &mut Ledger, ended: &[[u64; 3]], living: &[(u64, [u64; 3])]) -> [u64; 3] {
        let told = ledger.enter(ended.iter().map(|amounts| account(*amounts)), lives(living));
        let [sent, received, again, ..] = told.get(&A).map_or([0; AMOUNTS], |(_, amounts)| *amounts);
        [sent, received, again]
    }

    fn is_empty(ledger: &Ledger) -> bool {
        ledger.told.is_empty() && ledger.carried.is_empty() && ledger.debts.iter().all(SortedMap::is_empty)
    }

    #[test]
    fn growth_is_told_once_while_it_lives_and_when_it_ends() {
        let mut ledger = Ledger::default();
        assert_eq!(enter(&mut ledger, &[], &[(1, [10, 1, 0]), (2, [5, 0, 0])]), [15, 1, 0]);
        assert_eq!(enter(&mut ledger, &[], &[(1, [12, 1, 0]), (2, [5, 0, 2])]), [2, 0, 2]);
        assert_eq!(enter(&mut ledger, &[[20, 1, 0]], &[(2, [5, 0, 2])]), [8, 0, 0]);
        assert_eq!(enter(&mut ledger, &[[5, 7, 2]], &[]), [0, 7, 0]);
    }

    #[test]
    fn what_ends_between_the_tables_is_told_a_window_later() {
        let mut ledger = Ledger::default();
        assert_eq!(enter(&mut ledger, &[], &[(1, [10, 0, 0])]), [10, 0, 0]);
        assert_eq!(enter(&mut ledger, &[], &[]), [0, 0, 0]);
        assert_eq!(enter(&mut ledger, &[[25, 0, 0]], &[]), [15, 0, 0]);
    }

    #[test]
    fn a_debt_swallows_no_growth_of_what_lives() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, &[], &[(1, [100, 0, 0]), (2, [0, 0, 0])]);
        // The first has ended between the tables, or unseen.
        assert_eq!(enter(&mut ledger, &[], &[(2, [30, 0, 0])]), [30, 0, 0]);
        assert_eq!(enter(&mut ledger, &[], &[(2, [45, 0, 0])]), [15, 0, 0]);
    }

    #[test]
    fn a_debt_that_nobody_pays_is_forgotten() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, &[], &[(1, [10, 0, 0])]);
        for _ in 0..3 {
            assert_eq!(enter(&mut ledger, &[], &[]), [0; 3]);
        }
        assert!(is_empty(&ledger));
        assert_eq!(enter(&mut ledger, &[[3, 0, 0]], &[]), [3, 0, 0]);
    }

    #[test]
    fn a_socket_that_is_used_again_begins_at_nothing() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, &[], &[(1, [10, 0, 0])]);
        let again = Lives { connection: (1, 2), so_far: account([4, 0, 0]), rtt_us: 0 };
        let told = ledger.enter([account([11, 0, 0])].into_iter(), [again].into_iter());
        assert_eq!(told.get(&A).map(|(_, amounts)| amounts[0]), Some(1 + 4));
    }

    #[test]
    fn a_table_that_begins_anew_owes_nothing() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, &[], &[(1, [10, 0, 0])]);
        ledger.close(lives(&[(1, [14, 0, 0])]));
        assert_eq!(enter(&mut ledger, &[[1, 0, 0]], &[]), [5, 0, 0]);
    }
}
