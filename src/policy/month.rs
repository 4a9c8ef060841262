//! Calendar months, in UTC, from a time that is passed in.

use std::{fmt, str::FromStr};

/// A calendar month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: u32,
    /// 1 to 12.
    month: u32,
}

impl Month {
    /// The month of a time in milliseconds since the UNIX epoch.
    pub fn of(unix_ms: u64) -> Self {
        // Days are counted from 1 March of a year 0, so that leap days come last: 400 years are 146,097 days, and months from
        // March on are 30.6 days long on average, which `(5 * day + 2) / 153` turns into whole months.
        let days = unix_ms / 86_400_000 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        // Times of 64 bits of milliseconds reach no further than some 600 million years.
        #[allow(clippy::cast_possible_truncation)]
        Self { year: year as u32, month: month as u32 }
    }

    /// When it ends and the next one begins, in milliseconds since the UNIX epoch.
    pub fn end_ms(self) -> u64 {
        // From March on, as above: the month after December is the eleventh, that after February the first of the next year.
        let from_march = (u64::from(self.month) + 10) % 12;
        let year = u64::from(self.year) + u64::from(self.month == 12);
        let year = if from_march >= 10 { year.saturating_sub(1) } else { year };
        let (era, year_of_era) = (year / 400, year % 400);
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * from_march + 2) / 5;
        let days = (era * 146_097 + day_of_era).saturating_sub(719_468);
        days.saturating_mul(86_400_000)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// What is no month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAMonth;

impl FromStr for Month {
    type Err = NotAMonth;

    /// `2026-11`, as it is displayed.
    fn from_str(text: &str) -> Result<Self, NotAMonth> {
        let (year, month) = text.split_once('-').ok_or(NotAMonth)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| NotAMonth);
        let read = Self { year: number(year)?, month: number(month)? };
        if (1..=12).contains(&read.month) { Ok(read) } else { Err(NotAMonth) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_and_end_when_they_do() {
        for (unix_seconds, month) in [
            (0, "1970-01"),
            (2_678_399, "1970-01"),
            (2_678_400, "1970-02"),
            (951_782_399, "2000-02"),
            (951_868_799, "2000-02"),
            (951_868_800, "2000-03"),
            (1_709_251_199, "2024-02"),
            (1_709_251_200, "2024-03"),
            (1_740_787_199, "2025-02"),
            (1_740_787_200, "2025-03"),
            (1_796_083_199, "2026-11"),
            (1_796_083_200, "2026-12"),
            (4_107_542_399, "2100-02"),
            (4_107_542_400, "2100-03"),
        ] {
            assert_eq!(Month::of(unix_seconds * 1000).to_string(), month, "{unix_seconds}");
        }
    }

    /// The days of each month of 400 years, counted one by one.
    #[test]
    fn every_day_of_a_cycle_is_in_its_month() {
        let (mut day, mut year) = (0u64, 1970u32);
        while year < 2370 {
            let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
            let february = if leap { 29 } else { 28 };
            for (month, days) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                assert_eq!(Month { year, month }.end_ms(), (day + days) * 86_400_000, "{year}-{month}");
                for _ in 0..days {
                    assert_eq!(Month::of(day * 86_400_000), Month { year, month });
                    assert_eq!(Month::of(day * 86_400_000 + 86_399_999), Month { year, month });
                    day += 1;
                }
            }
            year += 1;
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["1970-01", "2026-12"] {
            assert_eq!(text.parse::<Month>().map(|month| month.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "2026", "2026-13", "2026-0", "x-1", "2026-1-1"] {
            assert_eq!(text.parse::<Month>(), Err(NotAMonth), "{text}");
        }
        assert!(Month::of(u64::MAX) > Month::of(0));
    }
}
