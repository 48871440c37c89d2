"""Facts about the tables: columns, the order of categories in the 121-UCI form, hashes, sources, credit.

The category orders are those of the 121-UCI collection (Fernandez-Delgado et al. 2014, JMLR 15), recovered by
comparing its files with the published tables; they are neither alphabetical nor by frequency.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class TableFacts:
    """What identifies one table and where it can come from.

    ``sha256`` is that of the canonical text, byte for byte (the file ``<name>.csv``). ``columns`` ends with
    the target; ``categories`` maps each categorical column to its codes' order. ``sensitive`` names columns
    offered as sensitive attributes. ``openml_ids`` are tried in order. ``form_sha256`` is the hash of the
    121-UCI form written with six significant digits, where it was published.
    """

    name: str
    columns: tuple[str, ...]
    target: str
    positive: str
    negative: str
    categories: Mapping[str, tuple[str, ...]]
    sensitive: tuple[str, ...]
    rows: int
    sha256: str
    form_sha256: str | None
    openml_ids: tuple[int, ...]
    attribution: str

    @property
    def features(self) -> tuple[str, ...]:
        """The input columns, in order."""
        return tuple(c for c in self.columns if c not in (self.target, "split"))


ADULT = TableFacts(
    name="adult",
    columns=(
        "age",
        "workclass",
        "fnlwgt",
        "education",
        "education-num",
        "marital-status",
        "occupation",
        "relationship",
        "race",
        "sex",
        "capital-gain",
        "capital-loss",
        "hours-per-week",
        "native-country",
        "income",
        "split",
    ),
    target="income",
    positive=">50K",
    negative="<=50K",
    categories={
        "workclass": (
            "Private",
            "Self-emp-not-inc",
            "Self-emp-inc",
            "Federal-gov",
            "Local-gov",
            "State-gov",
            "Without-pay",
            "Never-worked",
        ),
        "education": (
            "Bachelors",
            "Some-college",
            "11th",
            "HS-grad",
            "Prof-school",
            "Assoc-acdm",
            "Assoc-voc",
            "9th",
            "7th-8th",
            "12th",
            "Masters",
            "1st-4th",
            "10th",
            "Doctorate",
            "5th-6th",
            "Preschool",
        ),
        "marital-status": (
            "Married-civ-spouse",
            "Divorced",
            "Never-married",
            "Separated",
            "Widowed",
            "Married-spouse-absent",
            "Married-AF-spouse",
        ),
        "occupation": (
            "Tech-support",
            "Craft-repair",
            "Other-service",
            "Sales",
            "Exec-managerial",
            "Prof-specialty",
            "Handlers-cleaners",
            "Machine-op-inspct",
            "Adm-clerical",
            "Farming-fishing",
            "Transport-moving",
            "Priv-house-serv",
            "Protective-serv",
            "Armed-Forces",
        ),
        "relationship": ("Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"),
        "race": ("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"),
        "sex": ("Male", "Female"),
        "native-country": (
            "United-States",
            "Cambodia",
            "England",
            "Puerto-Rico",
            "Canada",
            "Germany",
            "Outlying-US(Guam-USVI-etc)",
            "India",
            "Japan",
            "Greece",
            "South",
            "China",
            "Cuba",
            "Iran",
            "Honduras",
            "Philippines",
            "Italy",
            "Poland",
            "Jamaica",
            "Vietnam",
            "Mexico",
            "Portugal",
            "Ireland",
            "France",
            "Dominican-Republic",
            "Laos",
            "Ecuador",
            "Taiwan",
            "Haiti",
            "Columbia",
            "Hungary",
            "Guatemala",
            "Nicaragua",
            "Scotland",
            "Thailand",
            "Yugoslavia",
            "El-Salvador",
            "Trinadad&Tobago",
            "Peru",
            "Hong",
            "Holand-Netherlands",
        ),
    },
    sensitive=("sex", "race", "age", "marital-status", "native-country"),
    rows=48842,
    sha256="d99d5b2c07ff6c7e09b6e0cefe115f6835d5c7b6efebdb9276238f1243c6369b",
    form_sha256="35a66da5ddc67bbf3885e71efe9a9af350c068e7543297a298cc8473e0b7b950",
    openml_ids=(1590,),
    attribution=(
        "Becker, B. and Kohavi, R. (1996). Adult. UCI Machine Learning Repository. doi:10.24432/C5XW20. CC BY 4.0. "
        "Changed: columns encoded as numbers and standardised."
    ),
)
ADULT_TRAIN_ROWS = 32561

_BANK_COLUMNS = (
    "age",
    "job",
    "marital",
    "education",
    "default",
    "balance",
    "housing",
    "loan",
    "contact",
    "day",
    "month",
    "duration",
    "campaign",
    "pdays",
    "previous",
    "poutcome",
    "y",
)
_BANK_CREDIT = (
    "Moro, S., Rita, P. and Cortez, P. (2014). Bank Marketing. UCI Machine Learning Repository. "
    "doi:10.24432/C5K306. CC BY 4.0. Changed: columns encoded as numbers and standardised."
)

BANK = TableFacts(
    name="bank",
    columns=_BANK_COLUMNS,
    target="y",
    positive="yes",
    negative="no",
    categories={
        "job": (
            "admin.",
            "unknown",
            "unemployed",
            "management",
            "housemaid",
            "entrepreneur",
            "student",
            "blue-collar",
            "self-employed",
            "retired",
            "technician",
            "services",
        ),
        "marital": ("married", "divorced", "single"),
        "education": ("unknown", "secondary", "primary", "tertiary"),
        "default": ("yes", "no"),
        "housing": ("yes", "no"),
        "loan": ("yes", "no"),
        "contact": ("unknown", "telephone", "cellular"),
        "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
        "poutcome": ("unknown", "other", "failure", "success"),
    },
    sensitive=("age", "marital"),
    rows=4521,
    sha256="dc8d576e9bda0f41ee891251bd84bab9a39ce576cba715aac08adc2374a01fde",
    form_sha256="8de965d37754d37fd2df7037987029a8b264e8a8c7c4d844933248d085313bbe",
    openml_ids=(1558,),
    attribution=_BANK_CREDIT,
)

# Every row of bank is also a row of bank-full: never use one as held-out data for the other.
BANK_FULL = dataclasses.replace(
    BANK,
    name="bank-full",
    rows=45211,
    sha256="d1513ec63b385506f7cfce9f2c5caa9fe99e7ba4e8c3fa264b3aaf0f849ed32d",
    form_sha256=None,
    openml_ids=(1461,),
)

TABLES: Mapping[str, TableFacts] = {table.name: table for table in (ADULT, BANK, BANK_FULL)}
