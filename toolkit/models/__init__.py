"""Teachers, students and tokenizers."""

from toolkit.models.contract import Model, check_model
from toolkit.models.stored_teacher import StoredTeacher
from toolkit.models.student import build_student
from toolkit.models.teacher import Teacher, build_teacher
from toolkit.models.tokenizers import build_tokenizer

__all__ = ["Model", "StoredTeacher", "Teacher", "build_student", "build_teacher", "build_tokenizer", "check_model"]
