//! Numbers and times as people read them.

/// Digits in groups of three: `2 252`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// How long something takes or has been: `46 s`, `12 min`, `3 h 5 min`, `2 d 4 h`.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6_000 => format!("{minutes} min"),
        6_000..172_800 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", grouped(days), hours % 24),
    }
}

/// `81 blocks/s`; slow ones to a tenth.
pub fn pace(blocks_per_second: f64) -> String {
    if blocks_per_second > 0.0 && blocks_per_second < 9.95 {
        return format!("{blocks_per_second:.1} blocks/s");
    }
    format!("{} blocks/s", grouped(blocks_per_second.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        let numbers = [0, 7, 999, 1_000, 840_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "7", "999", "1 000", "840 000", "1 234 567"]);
        let spans = [-1.0, 0.9, 46.2, 99.0, 100.0, 720.0, 5_999.0, 6_000.0, 11_100.0, 187_200.0].map(span);
        let expected =
            ["0 s", "0 s", "46 s", "99 s", "1 min", "12 min", "99 min", "1 h 40 min", "3 h 5 min", "2 d 4 h"];
        assert_eq!(spans, expected);
        let paces = [0.0, 0.04, 3.44, 9.96, 81.4, 1_234.0].map(pace);
        let expected = ["0", "0.0", "3.4", "10", "81", "1 234"].map(|pace| format!("{pace} blocks/s"));
        assert_eq!(paces, expected);
    }
}
