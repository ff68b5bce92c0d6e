"""Grading of mathematical answers: exact, strict, and safe against every input."""

from trillium_math.grading.extraction import SOURCES, Source, extract_answer
from trillium_math.grading.grader import Grade, Grader, Kind

__all__ = ["SOURCES", "Grade", "Grader", "Kind", "Source", "extract_answer"]
