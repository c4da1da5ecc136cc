"""From runs to a report: load, statistics, analysis, figures, Markdown. Does not import torch and trains nothing."""
