//! The plain value types: text, numbers with bounds, durations, sizes, choices. Each validates while it is read.

use std::time::Duration;

use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use super::{
    reader::{Leaf, Mistake},
    schema,
    settings::{DefaultFamily, DrainError, LogFormat, OffloadMode, TlsVersion, UdpIo},
};
use crate::auth::{
    rest::{RestAlgorithm, RestForm},
    token::TokenAlgorithm,
};

/// Longest duration taken; keeps sums of instants far from overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The text of a string value.
pub(super) fn text<'v>(value: &'v DeValue<'_>, expected: &str) -> Result<&'v str, Mistake> {
    value.as_str().ok_or_else(|| {
        let what = format!("is of type {}, expected {expected}", value.type_str());
        Mistake::new(what, format!("write {expected}, in quotes"))
    })
}

/// An integer, if the value is one.
fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Non-empty text on one line.
#[derive(Debug)]
pub(super) struct Text(pub(super) String);

impl Leaf for Text {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let text = text(value, "a string")?;
        if text.is_empty() {
            return Err(Mistake::new("is empty", "write a value"));
        }
        if text.chars().any(char::is_control) {
            return Err(Mistake::new("contains control characters", "remove them"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Leaf for bool {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        value.as_bool().ok_or_else(|| Mistake::wrong_type(value, "true or false"))
    }
}

/// An integer within bounds, both inclusive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Int<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Leaf for Int<MIN, MAX> {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        if !value.is_integer() {
            return Err(Mistake::wrong_type(value, "an integer"));
        }
        integer(value)
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (MIN..=MAX).contains(number))
            .map(Self)
            .ok_or_else(|| Mistake::new("is out of range", format!("write a number from {MIN} to {MAX}")))
    }
}

/// A duration above zero: `"10m"`, `"500ms"`, or an integer of seconds.
#[derive(Debug)]
pub(super) struct Period(pub(super) Duration);

impl Leaf for Period {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        const EXAMPLES: &str = "write a duration like \"90s\", \"10m\", \"1h\", \"500ms\" or a whole number of seconds";
        const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let malformed = || Mistake::new("is not a duration", EXAMPLES);
        let (number, unit) = match value {
            DeValue::Integer(_) => (integer(value).and_then(|number| u64::try_from(number).ok()), 1_000),
            DeValue::String(text) => quantity(text, &UNITS, 1_000).ok_or_else(malformed)?,
            _ => return Err(Mistake::new(format!("is of type {}, expected a duration", value.type_str()), EXAMPLES)),
        };
        let period = number.and_then(|number| number.checked_mul(unit)).map(Duration::from_millis);
        match period {
            Some(Duration::ZERO) => Err(Mistake::new("is zero", "write a duration above zero")),
            Some(period) if period <= LONGEST => Ok(Self(period)),
            _ => Err(Mistake::new("is out of range", "write a duration of at most a year (\"365d\")")),
        }
    }
}

/// A duration, or `"off"`.
#[derive(Debug)]
pub(super) struct PeriodOrOff(pub(super) Option<Duration>);

impl Leaf for PeriodOrOff {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        if value.as_str() == Some("off") {
            return Ok(Self(None));
        }
        let Period(period) = Period::read(value)
            .map_err(|Mistake { what, remedy }| Mistake::new(what, format!("{remedy}, or \"off\"")))?;
        Ok(Self(Some(period)))
    }
}

/// As [`PeriodOrOff`] reads it.
pub(super) fn period_or_off_text(period: Option<Duration>) -> String {
    period.map_or_else(|| "off".to_owned(), period_text)
}

/// A duration, or zero.
#[derive(Debug)]
pub(super) struct PeriodOrZero(pub(super) Duration);

impl Leaf for PeriodOrZero {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        match Period::read(value) {
            Ok(Period(period)) => Ok(Self(period)),
            Err(mistake) if mistake.what == "is zero" => Ok(Self(Duration::ZERO)),
            Err(mistake) => Err(mistake),
        }
    }
}

/// A number of bytes within bounds: `"256KiB"`, or an integer of bytes.
#[derive(Debug)]
pub(super) struct Size<const MIN: u32, const MAX: u32>(pub(super) usize);

impl<const MIN: u32, const MAX: u32> Leaf for Size<MIN, MAX> {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        const EXAMPLES: &str = "write a size like \"64KiB\", \"4MiB\", \"2MB\" or a whole number of bytes";
        const UNITS: [(&str, u64); 7] = [
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
        ];
        let (number, unit) = match value {
            DeValue::Integer(_) => (integer(value).and_then(|number| u64::try_from(number).ok()), 1),
            DeValue::String(text) => {
                quantity(text, &UNITS, 1).ok_or_else(|| Mistake::new("is not a size", EXAMPLES))?
            }
            _ => return Err(Mistake::new(format!("is of type {}, expected a size", value.type_str()), EXAMPLES)),
        };
        number
            .and_then(|number| number.checked_mul(unit))
            .filter(|bytes| (u64::from(MIN)..=u64::from(MAX)).contains(bytes))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| {
                let remedy = format!("write a size from {} to {}", size_text(MIN as usize), size_text(MAX as usize));
                Mistake::new("is out of range", remedy)
            })
    }
}

/// A bandwidth: `"10Mbit/s"`, or 0 for none. Without a unit it could be bits or, as coturn has it, bytes.
#[derive(Debug)]
pub(super) struct BitRate(pub(super) Option<u64>);

/// Largest bandwidth taken, in bits per second.
const FASTEST: u64 = 10_000_000_000_000;

impl Leaf for BitRate {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        const EXAMPLES: &str =
            "write a bandwidth like \"500kbit/s\", \"10Mbit/s\", \"1Gbit/s\", \"2MB/s\" (bytes), or 0";
        const UNITS: [(&str, u64); 8] = [
            ("bit/s", 1),
            ("kbit/s", 1_000),
            ("Mbit/s", 1_000_000),
            ("Gbit/s", 1_000_000_000),
            ("B/s", 8),
            ("KB/s", 8_000),
            ("MB/s", 8_000_000),
            ("GB/s", 8_000_000_000),
        ];
        let (number, unit) = match value {
            DeValue::Integer(_) => match integer(value) {
                Some(0) => return Ok(Self(None)),
                _ => {
                    return Err(Mistake::new(
                        "has no unit",
                        format!("{EXAMPLES}; coturn's numbers are bytes, \"B/s\""),
                    ));
                }
            },
            DeValue::String(text) => quantity(text, &UNITS, 0)
                .filter(|(_, unit)| *unit != 0)
                .ok_or_else(|| Mistake::new("is not a bandwidth", EXAMPLES))?,
            _ => return Err(Mistake::new(format!("is of type {}, expected a bandwidth", value.type_str()), EXAMPLES)),
        };
        number
            .and_then(|number| number.checked_mul(unit))
            .filter(|bits| (8_000..=FASTEST).contains(bits))
            .map(|bits| Self(Some(bits)))
            .ok_or_else(|| {
                Mistake::new("is out of range", "write a bandwidth from \"8kbit/s\" to \"10000Gbit/s\", or 0")
            })
    }
}

/// A bandwidth as one would write it, in quotes.
pub(super) fn bit_rate_text(bits: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s"), (1, "bit/s")];
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| bits.is_multiple_of(*unit)).unwrap_or((1, "bit/s"));
    format!("\"{}{name}\"", bits / unit)
}

/// A number of bytes that may be very large: `"500GB"`, or 0 for none.
#[derive(Debug)]
pub(super) struct Volume(pub(super) Option<u64>);

impl Leaf for Volume {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        const EXAMPLES: &str = "write an amount like \"500MB\", \"100GB\", \"2TB\", \"50GiB\", or 0";
        const UNITS: [(&str, u64); 6] = [
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
        ];
        let (number, unit) = match value {
            DeValue::Integer(_) => match integer(value) {
                Some(0) => return Ok(Self(None)),
                _ => return Err(Mistake::new("has no unit", EXAMPLES)),
            },
            DeValue::String(text) => quantity(text, &UNITS, 0)
                .filter(|(_, unit)| *unit != 0)
                .ok_or_else(|| Mistake::new("is not an amount of data", EXAMPLES))?,
            _ => {
                let what = format!("is of type {}, expected an amount of data", value.type_str());
                return Err(Mistake::new(what, EXAMPLES));
            }
        };
        number
            .and_then(|number| number.checked_mul(unit))
            .filter(|bytes| (1..=1 << 60).contains(bytes))
            .map(|bytes| Self(Some(bytes)))
            .ok_or_else(|| Mistake::new("is out of range", "write an amount from \"1MB\" to \"1000000TB\", or 0"))
    }
}

/// An amount as one would write it, in quotes.
pub(super) fn volume_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (1_000_000_000_000, "TB"),
        (1 << 40, "TiB"),
        (1_000_000_000, "GB"),
        (1 << 30, "GiB"),
        (1_000_000, "MB"),
        (1 << 20, "MiB"),
    ];
    // It is read in whole units of these, so that one of them always divides it.
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit)).unwrap_or((1, "B"));
    format!("\"{}{name}\"", bytes / unit)
}

/// Splits `"10 m"` into number and unit. `None` if it is neither; a number too big is `(None, unit)`.
fn quantity(text: &str, units: &[(&str, u64)], bare: u64) -> Option<(Option<u64>, u64)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return None;
    }
    let unit = match unit.trim_start() {
        "" => bare,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    Some((number.parse().ok(), unit))
}

/// A duration as one would write it.
pub(super) fn period_text(period: Duration) -> String {
    const UNITS: [(u128, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let millis = period.as_millis();
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| millis.is_multiple_of(*unit)).unwrap_or((1, "ms"));
    format!("{}{name}", millis / unit)
}

/// A size as one would write it.
pub(super) fn size_text(bytes: usize) -> String {
    const UNITS: [(usize, &str); 4] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit)).unwrap_or((1, "B"));
    format!("{}{name}", bytes / unit)
}

/// A socket buffer: a size, or `"system"` for the system's default.
#[derive(Debug)]
pub(super) struct Buffer(pub(super) Option<usize>);

impl Leaf for Buffer {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        if value.as_str() == Some("system") {
            return Ok(Self(None));
        }
        let Size(bytes) = Size::<4096, { 1 << 30 }>::read(value)
            .map_err(|Mistake { what, remedy }| Mistake::new(what, format!("{remedy}, or \"system\"")))?;
        Ok(Self(Some(bytes)))
    }
}

/// How long to gather: `"50us"` to `"2000us"`, or `"off"`.
#[derive(Debug)]
pub(super) struct Gather(pub(super) Option<Duration>);

impl Leaf for Gather {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let text = text(value, "a time in microseconds, or \"off\"")?;
        if text == "off" {
            return Ok(Self(None));
        }
        text.strip_suffix("us")
            .and_then(|number| number.trim_end().parse().ok())
            .filter(|micros| (50..=2000).contains(micros))
            .map(|micros| Self(Some(Duration::from_micros(micros))))
            .ok_or_else(|| {
                let remedy = "write \"off\", or microseconds from \"50us\" to \"2000us\"";
                Mistake::new(format!("{text:?} is not a time to gather for"), remedy)
            })
    }
}

/// As [`Gather`] reads it.
pub(super) fn gather_text(gather: Option<Duration>) -> String {
    gather.map_or_else(|| "off".to_owned(), |time| format!("{}us", time.as_micros()))
}

/// Worker threads: a number, or `"auto"` for one per usable processor.
#[derive(Debug)]
pub(super) struct Workers(pub(super) Option<usize>);

/// Most worker threads.
pub(super) const MAX_WORKERS: u32 = 256;

impl Leaf for Workers {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        match value {
            DeValue::String(text) if text == "auto" => Ok(Self(None)),
            _ => Int::<1, MAX_WORKERS>::read(value)
                .map(|Int(number)| Self(Some(number as usize)))
                .map_err(|mistake| Mistake::new(mistake.what, format!("write \"auto\" or 1 to {MAX_WORKERS}"))),
        }
    }
}

/// One of a few words.
pub(super) fn choose<T: Copy>(value: &DeValue<'_>, choices: &[(&'static str, T)]) -> Result<T, Mistake> {
    let words: Vec<&'static str> = choices.iter().map(|(word, _)| *word).collect();
    let all = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let written = text(value, &format!("one of {all}"))?;
    choices.iter().find(|(word, _)| *word == written).map(|(_, choice)| *choice).ok_or_else(|| {
        let remedy = match schema::closest(&written.to_lowercase(), &words) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("write one of {all}"),
        };
        Mistake::new("is not a known choice", remedy)
    })
}

/// A transport of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// DTLS over UDP.
    Dtls,
}

impl Transport {
    /// Every one, in the order that they are printed in.
    pub(super) const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Dtls];

    /// Name as written in the file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }

    /// The kind of port that it is served on.
    pub(super) const fn port_kind(self) -> &'static str {
        match self {
            Self::Udp | Self::Dtls => "UDP",
            Self::Tcp | Self::Tls => "TCP",
        }
    }

    /// Whether it protects what it carries; such transports have a default port of their own.
    pub(super) const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Dtls)
    }
}

impl Leaf for Transport {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        choose(value, &Self::ALL.map(|transport| (transport.name(), transport)))
    }
}

impl Leaf for DefaultFamily {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        choose(value, &[("ipv4", Self::Ipv4), ("ipv6", Self::Ipv6), ("keep", Self::Keep)])
    }
}

impl Leaf for TlsVersion {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        choose(value, &[("1.2", Self::V1_2), ("1.3", Self::V1_3)])
    }
}

impl Leaf for UdpIo {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        choose(value, &[("auto", Self::Auto), ("batched", Self::Batched), ("portable", Self::Portable)])
    }
}

impl Leaf for OffloadMode {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let names = [("off", Self::Off), ("auto", Self::Auto), ("native", Self::Native), ("generic", Self::Generic)];
        choose(value, &names)
    }
}

/// The name of a network interface.
#[derive(Debug)]
pub(super) struct InterfaceName(pub(super) String);

impl Leaf for InterfaceName {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        /// Of Linux, without the byte that ends it (IFNAMSIZ).
        const LONGEST: usize = 15;
        let Text(name) = Text::read(value)?;
        if name.len() > LONGEST || name.contains(['/', ' ', ':']) || name == "." || name == ".." {
            return Err(Mistake::new("is no name of an interface", "write a name as `ip link` shows it"));
        }
        Ok(Self(name))
    }
}

impl Leaf for DrainError {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        match integer(value) {
            Some(486) => Ok(Self::Quota),
            Some(508) => Ok(Self::Capacity),
            Some(_) => Err(Mistake::new("is not an error that new clients can get", "write 486 or 508")),
            None => Err(Mistake::wrong_type(value, "486 or 508")),
        }
    }
}

impl Leaf for LogFormat {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        choose(value, &[("text", Self::Text), ("json", Self::Json)])
    }
}

impl Leaf for RestForm {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        choose(value, &Self::ALL)
    }
}

impl Leaf for RestAlgorithm {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        choose(value, &Self::ALL)
    }
}

impl Leaf for TokenAlgorithm {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        choose(value, &Self::ALL)
    }
}

/// What stands between the parts of a user name: one character that no part has to have.
#[derive(Debug)]
pub(super) struct Separator(pub(super) char);

impl Leaf for Separator {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let text = text(value, "one character")?;
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(separator), None) if separator.is_ascii_punctuation() && separator != '@' => Ok(Self(separator)),
            _ => Err(Mistake::new("is no separator", "write one punctuation character other than \"@\", like \":\"")),
        }
    }
}

/// A URI that clients reach a server by.
#[derive(Debug)]
pub(super) struct ClientUri(pub(super) String);

impl Leaf for ClientUri {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let Text(text) = Text::read(value)?;
        let is_known = ["stun:", "stuns:", "turn:", "turns:"].iter().any(|scheme| text.starts_with(scheme));
        if is_known && !text.contains(char::is_whitespace) {
            return Ok(Self(text));
        }
        Err(Mistake::new(
            "is no URI of a STUN or TURN server",
            "write one like \"turn:turn.example.org?transport=udp\"",
        ))
    }
}

/// A log filter.
#[derive(Debug)]
pub(super) struct LogLevel(pub(super) String);

impl Leaf for LogLevel {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        log_level(text(value, "a log level")?).map(Self)
    }
}

/// Checks a log filter: a level, or `module=level` pairs between commas.
pub(super) fn log_level(written: &str) -> Result<String, Mistake> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const EXAMPLES: &str =
        "write a level (off, error, warn, info, debug, trace) or pairs like \"info,turnserver::turn=debug\"";
    for directive in written.split(',').map(str::trim) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).to_lowercase();
        if !LEVELS.contains(&level.as_str()) {
            // The filter syntax itself would take a bare unknown word for a module at level trace.
            let remedy = schema::closest(&level, &LEVELS);
            let remedy = remedy.map_or_else(|| EXAMPLES.to_owned(), |near| format!("did you mean `{near}`?"));
            return Err(Mistake::new("is not a log level", remedy));
        }
    }
    match EnvFilter::builder().parse(written) {
        Ok(_) => Ok(written.to_owned()),
        Err(error) => Err(Mistake::new(format!("is not a log filter: {error}"), EXAMPLES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Leaf>(toml: &str) -> Result<T, Mistake> {
        T::read(DeValue::parse(toml).unwrap().get_ref())
    }

    #[test]
    fn durations_take_units() {
        for (written, millis) in [
            ("\"600s\"", 600_000),
            ("\"10m\"", 600_000),
            ("\"1h\"", 3_600_000),
            ("\"500ms\"", 500),
            ("\"1d\"", 86_400_000),
        ] {
            assert_eq!(read::<Period>(written).unwrap().0.as_millis(), millis, "{written}");
        }
        assert_eq!(read::<Period>("90").unwrap().0, Duration::from_secs(90));
        assert_eq!(read::<Period>("\"90\"").unwrap().0, Duration::from_secs(90));
    }

    #[test]
    fn bad_durations_say_why() {
        assert_eq!(read::<Period>("\"10 minutes\"").unwrap_err().what, "is not a duration");
        assert_eq!(read::<Period>("\"10M\"").unwrap_err().what, "is not a duration");
        assert_eq!(read::<Period>("\"\"").unwrap_err().what, "is not a duration");
        assert_eq!(read::<Period>("0").unwrap_err().what, "is zero");
        assert_eq!(read::<Period>("-1").unwrap_err().what, "is out of range");
        assert_eq!(read::<Period>("\"99999999999999999999s\"").unwrap_err().what, "is out of range");
        assert_eq!(read::<Period>("\"366d\"").unwrap_err().what, "is out of range");
        assert_eq!(read::<Period>("1.5").unwrap_err().what, "is of type float, expected a duration");
        assert!(read::<PeriodOrOff>("\"on\"").unwrap_err().remedy.ends_with("or \"off\""));
    }

    #[test]
    fn draining_takes_a_time_and_one_of_two_errors() {
        assert_eq!(read::<PeriodOrOff>("\"off\"").unwrap().0, None);
        assert_eq!(read::<PeriodOrOff>("\"5m\"").unwrap().0, Some(Duration::from_secs(300)));
        assert_eq!(read::<DrainError>("486").unwrap(), DrainError::Quota);
        assert_eq!(read::<DrainError>("508").unwrap(), DrainError::Capacity);
        assert_eq!(read::<DrainError>("500").unwrap_err().remedy, "write 486 or 508");
        assert_eq!(read::<DrainError>("\"508\"").unwrap_err().remedy, "write 486 or 508 without quotes");
    }

    #[test]
    fn sizes_take_units() {
        type Any = Size<0, { u32::MAX }>;
        for (written, bytes) in
            [("\"64KiB\"", 65_536), ("\"1MiB\"", 1_048_576), ("\"2MB\"", 2_000_000), ("77", 77), ("\"5B\"", 5)]
        {
            assert_eq!(read::<Any>(written).unwrap().0, bytes, "{written}");
        }
        assert_eq!(read::<Any>("\"64 kilo\"").unwrap_err().what, "is not a size");
        assert_eq!(read::<Size<1024, 2048>>("4096").unwrap_err().remedy, "write a size from 1KiB to 2KiB");
    }

    #[test]
    fn what_is_printed_reads_back() {
        for millis in [1, 999, 1_000, 90_000, 600_000, 3_600_000, 86_400_000] {
            let period = Duration::from_millis(millis);
            assert_eq!(read::<Period>(&format!("\"{}\"", period_text(period))).unwrap().0, period);
        }
        for bytes in [1, 1_024, 65_537, 1 << 20] {
            assert_eq!(read::<Size<0, { u32::MAX }>>(&format!("\"{}\"", size_text(bytes))).unwrap().0, bytes);
        }
    }

    #[test]
    fn integers_have_bounds_and_type() {
        assert_eq!(read::<Int<1, 9>>("9").unwrap().0, 9);
        assert_eq!(read::<Int<1, 65535>>("0x10").unwrap().0, 16);
        assert_eq!(read::<Int<1, 9>>("10").unwrap_err(), Mistake::new("is out of range", "write a number from 1 to 9"));
        assert_eq!(read::<Int<1, 9>>("-1").unwrap_err().what, "is out of range");
        assert_eq!(read::<Int<1, 9>>("\"5\"").unwrap_err().remedy, "write an integer without quotes");
    }

    #[test]
    fn words_are_suggested() {
        assert_eq!(read::<Transport>("\"UDP\"").unwrap_err().remedy, "did you mean \"udp\"?");
        assert_eq!(
            read::<Transport>("\"sctp\"").unwrap_err().remedy,
            "write one of \"udp\", \"tcp\", \"tls\", \"dtls\""
        );
        assert_eq!(read::<LogFormat>("\"jsno\"").unwrap_err().remedy, "did you mean \"json\"?");
        assert_eq!(read::<bool>("\"true\"").unwrap_err().remedy, "write true or false without quotes");
    }

    #[test]
    fn log_filters_are_checked() {
        assert!(log_level("info").is_ok());
        assert!(log_level("warn,turnserver::turn=debug").is_ok());
        assert_eq!(log_level("inof").unwrap_err().remedy, "did you mean `info`?");
        assert_eq!(log_level("turnserver=loud").unwrap_err().what, "is not a log level");
        assert!(log_level("").is_err());
        assert!(log_level("=[=debug").is_err());
    }

    #[test]
    fn buffers_and_workers_have_a_word() {
        assert_eq!(read::<Buffer>("\"system\"").unwrap().0, None);
        assert_eq!(read::<Buffer>("\"4MiB\"").unwrap().0, Some(4 << 20));
        assert!(read::<Buffer>("12").unwrap_err().remedy.ends_with("or \"system\""));
        assert_eq!(read::<Workers>("\"auto\"").unwrap().0, None);
        assert_eq!(read::<Workers>("4").unwrap().0, Some(4));
        assert!(
            read::<Workers>("0").is_err() && read::<Workers>("257").is_err() && read::<Workers>("\"all\"").is_err()
        );
    }

    #[test]
    fn gathering_is_a_matter_of_microseconds() {
        assert_eq!(read::<Gather>("\"off\"").unwrap().0, None);
        for (text, micros) in [("50us", 50), ("200us", 200), ("2000us", 2000)] {
            let gather = read::<Gather>(&format!("\"{text}\"")).unwrap().0;
            assert_eq!(gather, Some(Duration::from_micros(micros)));
            assert_eq!(gather_text(gather), text);
        }
        for wrong in ["\"49us\"", "\"2001us\"", "\"1ms\"", "\"\"", "\"us\""] {
            assert!(read::<Gather>(wrong).unwrap_err().remedy.contains("\"off\""), "{wrong}");
        }
        assert!(read::<Gather>("200").unwrap_err().what.starts_with("is of type integer"));
        assert_eq!(gather_text(None), "off");
    }

    #[test]
    fn text_is_not_empty_and_has_no_control_characters() {
        assert_eq!(read::<Text>("\"x y\"").unwrap().0, "x y");
        assert!(read::<Text>("\"\"").is_err());
        assert!(read::<Text>("\"a\\nb\"").is_err());
        assert_eq!(read::<Text>("5").unwrap_err().remedy, "write a string, in quotes");
    }

    #[test]
    fn bandwidths_say_their_unit() {
        for (written, bits) in [
            ("\"8000bit/s\"", 8_000),
            ("\"500kbit/s\"", 500_000),
            ("\"10 Mbit/s\"", 10_000_000),
            ("\"1Gbit/s\"", 1_000_000_000),
            ("\"125KB/s\"", 1_000_000),
            ("\"2MB/s\"", 16_000_000),
        ] {
            assert_eq!(read::<BitRate>(written).unwrap().0, Some(bits), "{written}");
            assert_eq!(read::<BitRate>(&bit_rate_text(bits)).unwrap().0, Some(bits));
        }
        assert_eq!(read::<BitRate>("0").unwrap().0, None);
        let bare = read::<BitRate>("64000").unwrap_err();
        assert!(bare.what == "has no unit" && bare.remedy.contains("coturn's numbers are bytes"), "{bare:?}");
        for wrong in ["\"64000\"", "\"10mbit/s\"", "\"10Mbps\"", "\"\""] {
            assert_eq!(read::<BitRate>(wrong).unwrap_err().what, "is not a bandwidth", "{wrong}");
        }
        for wrong in ["\"1bit/s\"", "\"99999Gbit/s\"", "\"99999999999999999999bit/s\""] {
            assert_eq!(read::<BitRate>(wrong).unwrap_err().what, "is out of range", "{wrong}");
        }
    }

    #[test]
    fn amounts_say_their_unit() {
        for (written, bytes) in [("\"500MB\"", 500_000_000), ("\"3GiB\"", 3 << 30), ("\"2TB\"", 2_000_000_000_000)] {
            assert_eq!(read::<Volume>(written).unwrap().0, Some(bytes), "{written}");
            assert_eq!(volume_text(bytes), written);
        }
        assert_eq!(read::<Volume>("0").unwrap().0, None);
        assert_eq!(read::<Volume>("5").unwrap_err().what, "has no unit");
        assert_eq!(read::<Volume>("\"5\"").unwrap_err().what, "is not an amount of data");
        assert_eq!(read::<Volume>("\"0MB\"").unwrap_err().what, "is out of range");
        assert_eq!(read::<Volume>("\"99999999TB\"").unwrap_err().what, "is out of range");
    }
}
