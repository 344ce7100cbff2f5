//! `strftime_now` without a clock: the caller says what time it is.

/// A date and time as templates print it. The engine has no clock; a caller that wants the current date in
/// its prompts passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year, for example 2024.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// Formats like C's `strftime` in the C locale; an unknown directive stays as it is.
    pub(super) fn format(self, format: &str) -> String {
        let mut out = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            match characters.next() {
                Some(directive) => out.push_str(&self.directive(directive)),
                None => out.push('%'),
            }
        }
        out
    }

    fn directive(self, directive: char) -> String {
        let month = MONTHS[usize::from(self.month.clamp(1, 12) - 1)];
        let weekday = WEEKDAYS[self.weekday()];
        match directive {
            'Y' => format!("{:04}", self.year),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{:02}", (self.hour + 11) % 12 + 1),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => month.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'A' => weekday.to_owned(),
            'a' => weekday[..3].to_owned(),
            'j' => format!("{:03}", self.day_of_year()),
            'F' => self.format("%Y-%m-%d"),
            'T' => self.format("%H:%M:%S"),
            '%' => "%".to_owned(),
            other => format!("%{other}"),
        }
    }

    fn is_leap(self) -> bool {
        self.year.is_multiple_of(4)
            && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    fn day_of_year(self) -> u16 {
        const BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let month = usize::from(self.month.clamp(1, 12) - 1);
        let leap = u16::from(self.is_leap() && month > 1);
        BEFORE[month] + u16::from(self.day) + leap
    }

    /// Days since Sunday, by Sakamoto's method.
    fn weekday(self) -> usize {
        const OFFSETS: [usize; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = usize::from(self.year).max(1) - usize::from(self.month < 3);
        let month = usize::from(self.month.clamp(1, 12) - 1);
        (year + year / 4 - year / 100 + year / 400 + OFFSETS[month] + usize::from(self.day)) % 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_print_what_c_prints() {
        let date = Date { year: 2024, month: 7, day: 26, hour: 15, minute: 4, second: 9 };
        assert_eq!(date.format("%d %b %Y"), "26 Jul 2024");
        assert_eq!(
            date.format("%A, %B %e, %I:%M:%S %p %j %F %% %Q"),
            "Friday, July 26, 03:04:09 PM 208 2024-07-26 % %Q"
        );
        let leap = Date { year: 2000, month: 2, day: 29, hour: 0, minute: 0, second: 0 };
        assert_eq!(leap.format("%a %j %I%"), "Tue 060 12%");
    }
}
