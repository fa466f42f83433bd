"""Row-column structure: index sets, statistics, transfer."""
