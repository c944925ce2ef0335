"""Words are found in their other forms, in many languages at once; on each engine."""

# ruff: noqa: E501  a table reads best a row a line

from __future__ import annotations

import pytest

from app.core.db import Database
from app.search.text.analyzer import fold, stems
from app.search.text.stopwords import STOP_WORDS
from tests.support.desk import Desk

# By language: a text, queries that find it, and some that must not.
TEXTS = {
    "en": ("The old mills were running on connected wheels.", ["mill", "run", "connection", "WHEEL", "old mill"], ["milk"]),
    "es": ("Las canciones de los molinos cansaron a los niños trabajadores.", ["canción", "cancion", "molino", "niño", "NINOS", "trabajador"], ["cama"]),
    "de": ("Die Mühlräder der alten Häuser drehten sich in der Straße.", ["Mühlrad", "muhlrad", "Haus", "STRASSE", "alte", "Straßen"], ["Mühle"]),
    "fr": ("Les chevaux travaillaient près des moulins élevés.", ["cheval", "travailler", "moulin", "élevé", "ELEVE", "près"], ["chevet"]),
    "pt": ("As ações dos corações rápidos moveram os moinhos.", ["ação", "acao", "coração", "rápida", "moinho", "CORACAO"], ["cor"]),
    "it": ("I mulini della città parlavano di università bellissime.", ["mulino", "citta", "parlare", "università", "universita", "CITTÀ"], ["mulo"]),
    "ru": ("Красивые мельницы стояли у чёрной реки, и ёлки говорили.", ["красивый", "красивая", "мельница", "черный", "реками", "елка", "говорил"], ["мель"]),
    "ar": ("تقع المدرسة القديمة بجانب المكتبة، ويقرأ الأطفال الكتب والمعلمون يَكتُبون.", ["مدرسة", "مدرسه", "مكتبة", "اطفال", "معلمين", "القديم"], ["مدينة"]),
    "he": ("הילדים הלכו לבית הספר ובספרים של הַמַּכְלָלוֹת היו מלכים.", ["ילד", "ילדים", "בבית", "הספרים", "מכללה", "מלך", "ובית"], ["חתול"]),
    "zh": ("水车在古老的河边慢慢转动。", ["水车", "古老", "河边", "转动"], ["火车"]),
    "ja": ("古い水車が川のそばでゆっくり回っている。", ["水車", "古い水車", "そば", "回って"], ["電車"]),
    "ko": ("오래된 물레방아가 강가에서 천천히 돌아갑니다.", ["물레방아", "강가", "물레방아가", "천천히"], ["자동차"]),
}  # fmt: skip


def test_each_language_in_a_mixed_corpus(desk: Desk) -> None:
    """A query does not say its language, and finds its text among all the others."""
    for language, (text, _, _) in TEXTS.items():
        desk.put(text, external_id=language, language=language)
    for language, (_, forms, others) in TEXTS.items():
        for query in forms:
            found = [hit["metadata"]["language"] for hit in desk.find(query, mode="keyword")["results"]]
            assert language in found, (language, query)
        for query in others:
            answer = desk.find(query, mode="keyword")
            assert (
                language not in [hit["metadata"]["language"] for hit in answer["results"]] or answer["corrected_query"]
            ), (language, query)


@pytest.mark.parametrize("language", TEXTS)
def test_each_language_alone(sqlite_db: Database, language: str) -> None:
    """In a corpus of one language no other one's stemmer helps a query along."""
    desk = Desk(sqlite_db)
    text, forms, _ = TEXTS[language]
    desk.put(text, external_id=language, language=language)
    missed = [query for query in forms if desk.find(query, mode="keyword")["total"] != 1]
    assert missed == []
    assert [query for query in forms if desk.find(query, mode="keyword")["corrected_query"]] == []


@pytest.mark.parametrize(
    "forms",
    [
        "مدرسة المدرسة مدرسه والمدرسة بالمدرسة", "جامعة الجامعة", "عربية العربية", "مكتبة المكتبة للمكتبة", "إدارة الإدارة إدارات",
        "وزير الوزير", "معلم المعلمون والمعلمين", "كتاب الكتاب بالكتاب",
    ],
)  # fmt: skip
def test_forms_of_an_arabic_word_have_one_stem(forms: str) -> None:
    assert len(set(stems([fold(form) for form in forms.split()], "ar"))) == 1


def test_korean_words_side_by_side_may_stand_on_two_lines(sqlite_db: Database) -> None:
    desk = Desk(sqlite_db)
    desk.put("서울\n대학  병원", external_id="1", language="ko")
    assert desk.find('"서울 대학"', mode="keyword")["total"] == 1
    assert desk.find('"대학 서울"', mode="keyword")["total"] == 0


def test_highlights_stand_on_what_was_written(desk: Desk) -> None:
    """However much folding changes a word, its place is that of the text as it was given."""
    for language, query, shown in [
        ("he", "מכללה", "הַמַּכְלָלוֹת"), ("ru", "черный", "чёрной"), ("ko", "물레방아", "물레방아"), ("de", "STRASSE", "Straße"),
    ]:  # fmt: skip
        desk.put(TEXTS[language][0], external_id=language, language=language)
        hit = desk.find(query, mode="keyword")["results"][0]
        marked = [hit["snippet"][start:end] for start, end in hit["highlights"]]
        assert shown in marked, (language, marked)


@pytest.mark.parametrize(
    ("word", "folded"),
    [
        ("Élan", "elan"), ("STRASSE", "strasse"), ("Straße", "strasse"), ("й", "й"), ("Ёлка", "елка"), ("за́мок", "замок"),
        ("ΟΔΟΣ", "οδοσ"), ("ﬁn", "fin"), ("Ｍｉｌｌ", "mill"), ("شَمْس", "شمس"), ("إلى", "الي"), ("مدرسة", "مدرسه"),
        ("مـدرسة", "مدرسه"), ("שָׁלוֹם", "שלומ"), ("İstanbul", "istanbul"), ("ışık", "isik"), ("ｶﾞｽ", "ガス"), ("한국", "한국"),
    ],
)  # fmt: skip
def test_folding(word: str, folded: str) -> None:
    assert fold(word) == folded
    assert fold(fold(word)) == folded


@pytest.mark.parametrize(
    ("word", "stem"), [("הספרים", "ספר"), ("ספר", "ספר"), ("ים", "ים"), ("abcd", "abcd"), ("שבת", "שבת")]
)
def test_the_light_stemmer_of_hebrew(word: str, stem: str) -> None:
    assert stems([fold(word)], "he") == [fold(stem)]


def test_stop_words_are_as_the_analyzer_sees_them() -> None:
    """Folded once more they stay the same, else they would never be met."""
    wrong = {(language, word) for language, words in STOP_WORDS.items() for word in words if fold(word) != word}
    assert wrong == set()
