"""Words are found in their other forms, in many languages at once; on each engine."""

# ruff: noqa: E501  a table reads best a row a line

from __future__ import annotations

import pytest

from app.core.db import Database
from app.search.text.analyzer import primary, stems
from app.search.text.normalize import fold
from app.search.text.stopwords import STOP_WORDS
from tests.support.desk import Desk

# By language: a text, queries that find it, and some that must not.
TEXTS = {
    "en": ("The old mills were running on connected wheels.", ["mill", "run", "connection", "WHEEL", "old mill"], ["milk"]),
    "es": ("Las canciones de los molinos cansaron a los niños trabajadores; luces de jóvenes en las ciudades.", ["canción", "cancion", "molino", "niño", "NINOS", "trabajador", "luz", "joven", "ciudad"], ["cama", "lucha"]),
    "de": ("Die Mühlräder der alten Häuser drehten sich in der Straße.", ["Mühlrad", "muhlrad", "Haus", "STRASSE", "alte", "Straßen"], ["Mühle"]),
    "fr": ("Les chevaux travaillaient près des moulins élevés et l'œuvre était fermée.", ["cheval", "travailler", "moulin", "élevé", "élevée", "élevées", "ELEVE", "près", "oeuvre", "fermé", "fermés"], ["chevet"]),
    "pt": ("As ações dos corações rápidos moveram os moinhos, e os animais dos homens viram papéis e jardins azuis.", ["ação", "acao", "coração", "rápida", "moinho", "CORACAO", "animal", "homem", "papel", "jardim", "azul"], ["cor", "papa"]),
    "it": ("I mulini della città parlavano di università bellissime presso i laghi dell'isola.", ["mulino", "citta", "parlare", "università", "universita", "CITTÀ", "lago", "isola"], ["mulo"]),
    "el": ("Τα παλιά βιβλία της εταιρίας ήταν στα σχολεία με τους μύλους.", ["βιβλίο", "βιβλιο", "εταιρία", "εταιρίες", "ΣΧΟΛΕΙΟ", "μύλος", "παλιός"], ["θάλασσα"]),
    "da": ("Møllerne på Ærø drejede hurtigt, og bøgerne lå på bordet.", ["mølle", "molle", "Aero", "ÆRØ", "bord", "bøger"], ["hus"]),
    "nb": ("Vannmøllene i Tromsø hadde gamle hjul, og det var ikke fisk i elven.", ["vannmølle", "vannmolle", "tromso", "hjul", "gammel fisk"], ["ikke", "torsk"]),
    "nn": ("Mølleverka i Ørsta hadde ikkje vatn, men eit hjul dreiv dei.", ["mølleverk", "orsta", "vatn", "hjulet"], ["ikkje", "eit", "vind"]),
    "pl": ("Stare młyny stały nad rzekami, a książki o Łodzi leżały w polskich domach.", ["młyn", "mlyn", "rzeka", "rzece", "książka", "książek", "polski", "dom", "stary"], ["morze"]),
    "cs": ("Staré mlýny stály u řek a kola se točila, v knihách o městech byla moudrost.", ["mlýn", "mlyn", "řeka", "kolo", "kniha", "knize", "město", "starý", "STARÝMI"], ["moře"]),
    "uk": ("Старі млини стояли біля річок, а в книгах про міста було п'ять казок.", ["млин", "річка", "річці", "книга", "книзі", "місто", "старий", "п’ять", "пять", "казка"], ["море"]),
    "th": ("กังหันน้ำเก่าหมุนช้าๆ ข้างแม่น้ำในปี ๒๕๖๗", ["กังหัน", "แม่น้ำ", "กังหันน้ำ", "หมุน", "2567"], ["รถไฟ"]),
    "ru": ("Красивые мельницы стояли у чёрной реки, и ёлки говорили.", ["красивый", "красивая", "мельница", "черный", "реками", "елка", "говорил"], ["мель"]),
    "ar": ("تقع المدرسة القديمة بجانب المكتبة، ويقرأ الأطفال الكتب والمعلمون يَكتُبون سنة ٢٠٢٤.", ["مدرسة", "مدرسه", "مكتبة", "اطفال", "معلمين", "القديم", "2024"], ["مدينة"]),
    "he": ("הילדים הלכו לבית הספר ובספרים של הַמַּכְלָלוֹת היו מלכים שנות רבות.", ["ילד", "ילדים", "בבית", "הספרים", "מכללה", "מלך", "ובית", "שנה"], ["חתול", "מספר"]),
    "iw": ("המכתב הגיע לירושלים בשעות הערב, והמספר היה ארוך.", ["מכתב", "שעה", "ערב", "מספר", "ירושלים"], ["כתב", "ספר"]),
    "zh": ("水车在古老的河边慢慢转动。", ["水车", "古老", "河边", "转动"], ["火车"]),
    "ja": ("古い水車が川のそばでゆっくり回っている。", ["水車", "古い水車", "そば", "回って"], ["電車"]),
    "ja-JP": ("ﾃﾞｰﾀとｶﾞｽの水車、か\u3099っこう。", ["データ", "ガス", "ｶﾞｽ", "水車", "がっこう"], ["カス"]),
    "ko": ("오래된 물레방아가 강가에서 천천히 돌아갑니다. \u1112\u1161\u11ab\u1100\u116e\u11a8", ["한국", "물레방아", "강가", "물레방아가", "천천히"], ["자동차"]),
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
    assert desk.find('"서울 대학"', mode="keyword")["relaxed"] == []
    assert desk.find('"대학 서울"', mode="keyword")["relaxed"] == ["대학 서울"]


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
    ("language", "forms"),
    [
        ("fr", "fermé fermée fermés fermées"), ("fr", "né née nés nées"), ("fr", "créé créée créées"), ("fr", "armée armées"),
        ("pt", "animal animais"), ("pt", "sinal sinais"), ("pt", "homem homens"), ("pt", "bem bens"), ("pt", "papel papéis"),
        ("pt", "fácil fáceis"), ("pt", "móvel móveis"), ("pt", "azul azuis"), ("pt", "lençol lençóis"), ("pt", "jardim jardins"),
        ("pt", "som sons"), ("pt", "comum comuns"), ("pt", "pão pães"), ("pt", "mão mãos"), ("pt", "barril barris"),
        ("pt", "mãe mães"), ("pt", "herói heróis"), ("pt", "luz luzes"), ("pt", "flor flores"), ("pt", "nação nações"),
        ("es", "luz luces"), ("es", "vez veces"), ("es", "feliz felices"), ("es", "lápiz lápices"), ("es", "joven jóvenes"),
        ("es", "origen orígenes"), ("es", "ciudad ciudades"), ("es", "hacer haces"), ("it", "lago laghi"), ("it", "banca banche"),
        ("el", "εταιρία εταιρίες εταιρίας εταιριών"), ("el", "βιβλίο βιβλία βιβλίου βιβλίων"), ("el", "ιστορία ιστορίες"),
        ("el", "σχολείο σχολεία"), ("he", "ספר הספר ספרים בספר לספר והספר"), ("he", "שנה שנות השנה השנים שנים"),
        ("he", "מספר המספר מספרים"), ("he", "שעה שעות השעה בשעות בשעה"), ("he", "בקשה בקשות הבקשה"), ("he", "שולחן השולחן שולחנות"), ("he", "מכתב המכתבים ומכתב"),
        ("pl", "młyn młyny młynów młynami młynie"), ("pl", "książka książki książek książkami"), ("pl", "noga nogi nodze"),
        ("pl", "polski polska polskiego polskich"), ("pl", "pracować pracuje pracował pracowała"), ("pl", "rzeka rzece rzeki"),
        ("cs", "město města městech městem"), ("cs", "starý stará starého starými"), ("cs", "otec otce otcem"),
        ("cs", "žena ženy ženami ženách"), ("cs", "kniha knihy knize knihou"), ("uk", "млин млини млинів млинами"),
        ("uk", "книга книги книзі книгою"), ("uk", "старий стара старого старими"), ("uk", "річка річки річці річок"),
        ("pl", "nauczyciel nauczyciela nauczycieli"), ("pl", "pisać pisał pisała pisali"), ("pl", "okno okna okien oknami"),
        ("pl", "biblioteka biblioteki bibliotece bibliotek"), ("cs", "pracovat pracoval pracovala"), ("pt", "português portugueses"),
        ("fr", "perdu perdue perdus perdues"), ("el", "ταξίδι ταξίδια"), ("he", "ספרייה ספריות הספרייה"), ("he", "עיר ערים"),
        ("uk", "працювати працював працювала працюють"), ("nn", "hus huset"), ("nb", "hus huset"), ("iw", "ספר ספרים"),
    ],
)  # fmt: skip
def test_forms_of_a_word_have_one_stem(language: str, forms: str) -> None:
    result = dict(zip(forms.split(), stems([fold(form) for form in forms.split()], language), strict=True))
    assert len(set(result.values())) == 1, result


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("he", "מספר ספר"), ("he", "מכתב כתב"), ("he", "מלחמה לחם"), ("he", "מדבר דבר"), ("he", "בקשה קשה"), ("he", "שמלה מלה"),
        ("he", "שולחן לחן"), ("he", "אשה אש"), ("pt", "papel papa"), ("pt", "mãe mão"), ("pt", "país pai"), ("es", "plaza placa"),
        ("fr", "cheval chevet"), ("uk", "столиця столик"), ("pl", "rzeka rzecz"), ("cs", "město most"), ("el", "βιβλίο βίβα"),
    ],
)  # fmt: skip
def test_different_words_have_different_stems(language: str, words: str) -> None:
    first, second = stems([fold(word) for word in words.split()], language)
    assert first != second


@pytest.mark.parametrize(
    ("alias", "language"), [("nb", "no"), ("nn-NO", "no"), ("iw", "he"), ("heb", "he"), ("deu", "de")]
)
def test_names_of_one_language(alias: str, language: str) -> None:
    assert primary(alias) == language


@pytest.mark.parametrize(
    ("word", "folded"),
    [
        ("Élan", "elan"), ("STRASSE", "strasse"), ("Straße", "strasse"), ("й", "й"), ("Ёлка", "елка"), ("за́мок", "замок"),
        ("ΟΔΟΣ", "οδοσ"), ("ﬁn", "fin"), ("Ｍｉｌｌ", "mill"), ("شَمْس", "شمس"), ("إلى", "الي"), ("مدرسة", "مدرسه"),
        ("مـدرسة", "مدرسه"), ("שָׁלוֹם", "שלומ"), ("İstanbul", "istanbul"), ("ışık", "isik"), ("ｶﾞｽ", "ガス"), ("한국", "한국"),
        ("\u304b\u3099", "が"), ("\u1112\u1161\u11ab", "한"), ("co\u00adop", "coop"), ("٢٠٢٤", "2024"), ("۲۰۲۴", "2024"), ("२०२४", "2024"),
        ("２０２４", "2024"), ("œuvre", "oeuvre"), ("Ærø", "aero"), ("Łódź", "lodz"), ("Đà", "da"), ("ǿ", "o"),
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
