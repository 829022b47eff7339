//! What every series promises: names, units, one page that parses.
