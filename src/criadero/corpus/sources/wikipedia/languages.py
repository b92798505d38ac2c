"""What differs between the 20 Wikipedias: names of file and category namespaces, and sections at the end.

Entry points: `LANGUAGES`, `names_of`. Dumps name their own namespaces too; both count. Section titles are
compared case-folded, without a final colon. Serbian is written in two scripts and has both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Words of one Wikipedia, case-folded.

    Attributes:
        files: prefixes of links that show a file.
        categories: prefixes of links that sort the page.
        tail: titles of sections of links and sources, dropped wherever they stand.
        last: titles that mean such a section only at the end of an article.
    """

    files: frozenset[str]
    categories: frozenset[str]
    tail: frozenset[str]
    last: frozenset[str]


def names_of(language: str) -> Names:
    """Return the names of a language together with the English ones, which every Wikipedia understands."""
    own = _NAMES.get(language, _ENGLISH)
    return Names(
        own.files | _ENGLISH.files,
        own.categories | _ENGLISH.categories,
        own.tail | _ENGLISH.tail,
        own.last | _ENGLISH.last,
    )


def _set(text: str) -> frozenset[str]:
    return frozenset(name.strip().casefold() for name in text.split(",") if name.strip())


def _names(*, files: str, categories: str, tail: str, last: str = "") -> Names:
    return Names(_set(files), _set(categories), _set(tail), _set(last))


_ENGLISH = _names(
    files="File, Image, Media",
    categories="Category",
    tail="""See also, References, Reference, Notes, Note, Footnotes, Endnotes, Citations,
        Notes and references,
        References and notes, Notes and citations, Citations and notes, Footnotes and references,
        References and footnotes, Notes and sources, Sources and notes, References and sources,
        Sources and references, References and further reading, Further reading and references,
        References and external links, External links, External link, External sources, Links, Weblinks,
        External links and references, External links and further reading, See also and references,
        Further reading and external links, Further reading, Additional reading, Works cited, Cited works,
        Cited references, Cited sources, Literature cited, General references, Specific references,
        Inline citations, Explanatory notes, Notelist, Selected bibliography and further reading,
        Notes and further reading, Reference notes, Image gallery, Gallery, Galleries, Related pages""",
    last="Bibliography, Sources, Literature, Works consulted, Publications about, Related links, Resources",
)

_NAMES = {
    "en": _ENGLISH,
    "bg": _names(
        files="Файл, Картинка, Изображение, Медия",
        categories="Категория",
        tail="""Вижте също, Виж също, Вижте още, Виж още, Външни препратки, Външна препратка, Външни връзки,
            Бележки, Бележка, Бележки и източници, Източници и бележки, Бележки под линия, Препратки,
            Източници, Използвана литература, Допълнителна литература, За допълнително четене,
            Цитирани източници, Галерия, Източници и препратки""",
        last="Литература, Библиография",
    ),
    "ca": _names(
        files="Fitxer, Imatge, Mèdia",
        categories="Categoria",
        tail="""Vegeu també, Vegeu també:, Referències, Notes, Notes i referències, Referències i notes,
            Enllaços externs, Enllaç extern, Bibliografia, Bibliografia addicional,
            Bibliografia complementària,
            Per a més informació, Lectures addicionals, Lectures recomanades, Fonts, Galeria,
            Galeria d'imatges,
            Articles relacionats, Peu de pàgina""",
        last="Obres citades",
    ),
    "cs": _names(
        files="Soubor, Obrázek, Média",
        categories="Kategorie",
        tail="""Reference, Odkazy, Externí odkazy, Externí odkaz, Související články, Související stránky,
            Poznámky, Poznámky a reference, Poznámky pod čarou, Použitá literatura, Související literatura,
            Další literatura, Literatura, Viz též, Galerie, Fotogalerie, Citace, Literatura a odkazy""",
        last="Zdroje, Prameny, Bibliografie, Prameny a literatura",
    ),
    "da": _names(
        files="Fil, Billede, Medie",
        categories="Kategori",
        tail="""Se også, Eksterne henvisninger, Ekstern henvisning, Eksterne links, Eksternt link, Referencer,
            Reference, Noter, Noter og referencer, Kilder og referencer, Fodnoter, Henvisninger,
            Kilder/henvisninger, Kilder og henvisninger, Yderligere læsning, Videre læsning, Galleri,
            Referencer og noter, Noter og henvisninger""",
        last="Kilder, Litteratur, Kilde, Bibliografi",
    ),
    "de": _names(
        files="Datei, Bild, Medium",
        categories="Kategorie",
        tail="""Einzelnachweise, Einzelnachweis, Weblinks, Weblink, Siehe auch, Literatur, Anmerkungen,
            Anmerkung, Fußnoten, Referenzen, Belege, Nachweise, Einzelnachweise und Anmerkungen,
            Anmerkungen und Einzelnachweise, Quellen und Einzelnachweise, Quellen und Anmerkungen,
            Literatur und Quellen, Quellen und Literatur, Literatur und Weblinks, Quellennachweise,
            Weiterführende Literatur, Externe Links, Galerie, Bildergalerie, Quellenangaben""",
        last="Quellen, Bibliografie, Bibliographie, Quelle",
    ),
    "es": _names(
        files="Archivo, Imagen, Medio, Media",
        categories="Categoría",
        tail="""Véase también, Vease también, Véase además, Ver también, Referencias, Referencia, Notas,
            Notas y referencias, Referencias y notas, Enlaces externos, Enlace externo, Bibliografía,
            Bibliografía adicional, Bibliografía complementaria, Lectura adicional, Lecturas adicionales,
            Lectura complementaria, Para saber más, Notas al pie, Fuentes y referencias, Galería,
            Galería de imágenes, Citas y referencias, Artículos relacionados""",
        last="Fuentes, Obras citadas",
    ),
    "fr": _names(
        files="Fichier, Image, Média",
        categories="Catégorie",
        tail="""Notes et références, Références, Référence, Notes, Note, Voir aussi, Liens externes,
            Lien externe, Articles connexes, Article connexe, Bibliographie, Annexes, Annexe, Liens internes,
            Sources et références, Références et notes, Sources et bibliographie,
            Bibliographie et sources, Pour en savoir plus, Pour approfondir, Lectures complémentaires,
            Galerie, Galerie d'images, Liens, Bibliographie et références, Bibliographie sélective""",
        last="Sources, Source, Documentation, Filmographie et sources",
    ),
    "hr": _names(
        files="Datoteka, Slika, Mediji",
        categories="Kategorija",
        tail="""Vidi još, Vidi i, Vidi također, Vidjeti još, Izvori, Izvor, Vanjske poveznice,
            Vanjska poveznica, Bilješke, Bilješke i izvori, Poveznice, Unutarnje poveznice, Fusnote, Napomene,
            Reference, Galerija, Dodatna literatura, Povezani članci, Izvori i bilješke""",
        last="Literatura, Bibliografija",
    ),
    "hu": _names(
        files="Fájl, Kép, Média",
        categories="Kategória",
        tail="""Jegyzetek, Jegyzet, Források, Forrás, További információk, További információ,
            Külső hivatkozások,
            Külső hivatkozás, Hivatkozások, Kapcsolódó szócikkek, Kapcsolódó cikkek, Lásd még, Lásd még:,
            Irodalom, Felhasznált irodalom, Ajánlott irodalom, További irodalom, Lábjegyzetek, Megjegyzések,
            Képgaléria, Galéria, Külső linkek, Kapcsolódó lapok""",
        last="Bibliográfia, Szakirodalom, Irodalmi források",
    ),
    "it": _names(
        files="File, Immagine, Media",
        categories="Categoria",
        tail="""Note, Bibliografia, Voci correlate, Altri progetti, Collegamenti esterni,
            Collegamento esterno,
            Riferimenti, Riferimenti bibliografici, Note e riferimenti, Annotazioni, Esplicative,
            Bibliografiche,
            Ulteriori letture, Letture consigliate, Per approfondire, Galleria d'immagini,
            Galleria fotografica,
            Approfondimenti bibliografici""",
        last="Fonti, Fonte, Sitografia, Galleria",
    ),
    "nl": _names(
        files="Bestand, Afbeelding, Media",
        categories="Categorie",
        tail="""Zie ook, Externe links, Externe link, Externe bronnen, Externe verwijzingen, Referenties,
            Referentie, Bronnen en referenties, Bronnen en noten,
            Noten en referenties, Noten, Voetnoten, Bronvermelding, Verwijzingen,
            Literatuur, Verder lezen, Galerij, Afbeeldingen, Noten en bronnen, Bronvermeldingen, Eindnoten""",
        last="Bronnen, Bron, Bibliografie, Voetnoot",
    ),
    "pl": _names(
        files="Plik, Grafika, Media",
        categories="Kategoria",
        tail="""Zobacz też, Zobacz także, Przypisy, Przypis, Uwagi, Bibliografia, Linki zewnętrzne,
            Link zewnętrzny, Literatura przedmiotu, Literatura dodatkowa, Przypisy i uwagi, Uwagi i przypisy,
            Galeria, Galeria zdjęć, Odnośniki, Publikacje źródłowe""",
        last="Literatura, Źródła, Źródło",
    ),
    "pt": _names(
        files="Ficheiro, Arquivo, Imagem, Multimédia, Mídia",
        categories="Categoria",
        tail="""Ver também, Ver tambem, Veja também, Referências, Referência, Notas, Notas e referências,
            Referências e notas, Ligações externas, Ligação externa, Links externos, Link externo,
            Bibliografia,
            Referências bibliográficas, Leitura adicional, Leituras adicionais, Leitura recomendada,
            Notas de rodapé, Fontes e referências, Bibliografia complementar, Galeria, Galeria de imagens,
            Galeria de fotos, Artigos relacionados""",
        last="Fontes, Fonte, Obras citadas",
    ),
    "ro": _names(
        files="Fișier, Fişier, Imagine, Media",
        categories="Categorie",
        tail="""Vezi și, Vezi şi, A se vedea și, Note, Referințe, Referinţe, Note și referințe,
            Note şi referinţe, Note bibliografice, Bibliografie, Bibliografie suplimentară, Legături externe,
            Legătură externă, Linkuri externe, Lectură suplimentară, Lecturi suplimentare, Note de subsol,
            Galerie, Galerie de imagini, Galerie foto, Lectură recomandată""",
        last="Surse, Literatură, Izvoare",
    ),
    "ru": _names(
        files="Файл, Изображение, Медиа",
        categories="Категория, К",
        tail="""См. также, См. также:, Смотри также, Смотрите также, Примечания, Примечание, Ссылки, Ссылка,
            Литература, Внешние ссылки, Источники, Комментарии, Сноски, Примечания и ссылки,
            Комментарии и примечания, Примечания и источники, Литература и источники,
            Источники и литература, Использованная литература, Рекомендуемая литература,
            Дополнительная литература, Ссылки и примечания, Ссылки и источники, Галерея, Фотогалерея""",
        last="Библиография, Источник",
    ),
    "sl": _names(
        files="Slika, Datoteka, Medij",
        categories="Kategorija",
        tail="""Glej tudi, Glej še, Sklici, Sklic, Viri, Viri in opombe, Opombe, Opombe in sklici,
            Sklici in opombe, Zunanje povezave, Zunanja povezava, Reference, Nadaljnje branje, Galerija,
            Viri in sklici, Sklici in viri, Dodatno branje, Opombe in viri, Galerija slik""",
        last="Literatura, Bibliografija, Vir",
    ),
    "sr": _names(
        files="Датотека, Слика, Медиј, Медија, Datoteka, Slika, Medij, Medija",
        categories="Категорија, Kategorija",
        tail="""Види још, Такође погледати, Погледати такође, Референце, Извори, Извор, Напомене, Белешке,
            Спољашње везе, Спољне везе, Спољашња веза, Фусноте, Напомене и референце, Галерија,
            Додатна литература, Повезани чланци, Vidi još, Takođe pogledati, Pogledati takođe,
            Reference, Izvori,
            Izvor, Napomene, Beleške, Spoljašnje veze, Spoljne veze, Spoljašnja veza, Fusnote,
            Napomene i reference, Galerija, Dodatna literatura, Povezani članci""",
        last="Литература, Библиографија, Literatura, Bibliografija",
    ),
    "sv": _names(
        files="Fil, Bild, Media",
        categories="Kategori",
        tail="""Se även, Se också, Referenser, Referens, Noter, Fotnoter, Noter och referenser,
            Externa länkar, Extern länk, Vidare läsning, Vidareläsning, Källor och noter, Källhänvisningar,
            Tryckta källor, Webbkällor, Galleri, Bildgalleri, Källförteckning, Referenser och noter""",
        last="Källor, Källa, Litteratur, Bibliografi",
    ),
    "uk": _names(
        files="Файл, Зображення, Медіа",
        categories="Категорія",
        tail="""Див. також, Див. також:, Дивіться також, Дивись також, Примітки, Примітка, Посилання,
            Література, Джерела, Зовнішні посилання, Виноски, Джерела та література,
            Література та джерела, Джерела та примітки, Примітки та джерела, Примітки й посилання,
            Примітки та посилання, Коментарі, Зноски, Використана література, Додаткова література,
            Джерела і література, Галерея, Фотогалерея, Рекомендована література""",
        last="Бібліографія, Джерело",
    ),
}

LANGUAGES = tuple(sorted(_NAMES))
"""Codes of the 20 languages, LLaMA 2.1."""
