"""From runs to a report: load, statistics, analysis, figures, Markdown. Imports no torch and trains nothing."""
