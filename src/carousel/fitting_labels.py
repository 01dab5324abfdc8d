"""`fit` for labels: one for each sequence, clip or text, or one for each of their rows, frames or words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carousel.errors import CarouselError
from carousel.fitting import (
    Categorical,
    Features,
    Id,
    Long,
    Out,
    Resume,
    Seeds,
    Set,
    Static,
    Time,
    Tune,
    Until,
    rows_until,
    run,
    search,
    sequence_columns,
    tell,
)
from carousel.frame_options import (
    ConvLstm,
    Crop,
    Encoder,
    Every,
    FramesColumn,
    Grey,
    Mirror,
    Rate,
    Size,
    SkipBad,
    choices,
)
from carousel.options import Data, Debug, Json, read, require_place
from carousel.word_options import (
    Crf,
    Intent,
    Keep,
    Longest,
    Lowercase,
    Spelling,
    TextColumn,
    TokenKind,
    Vectors,
    VocabularySize,
    read_labelled,
    split_settings,
    words_of,
)

__all__ = ["classify", "tag"]

Kind = Annotated[str, typer.Option(metavar="KIND", help="label, or regression where the target is a number.")]
ClassWeight = Annotated[
    str | None, typer.Option(metavar="HOW", help="balanced: classes count alike, however rare they are.")
]


def classify(
    data: Data,
    out: Out,
    target: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the label, one for each sequence.")],
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A table of the labels, one row per id, where DATA have no such column."),
    ] = None,
    id: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that says which sequence a row belongs to.")
    ] = None,
    time: Time = None,
    features: Features = None,
    static: Static = None,
    categorical: Categorical = None,
    long: Long = None,
    kind: Kind = "label",
    pooling: Annotated[
        str | None, typer.Option(metavar="HOW", help="last (usual), mean, max (usual of texts) or attention.")
    ] = None,
    class_weight: ClassWeight = None,
    valid: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Sequences to validate on, instead of some of DATA.")
    ] = None,
    text: TextColumn = None,
    tokens: TokenKind = None,
    vocabulary: VocabularySize = None,
    lowercase: Lowercase = False,
    spelling: Spelling = None,
    vectors: Vectors = None,
    longest: Longest = None,
    keep: Keep = None,
    frames: FramesColumn = None,
    size: Size = None,
    grey: Grey = False,
    crop: Crop = None,
    rate: Rate = None,
    every: Every = None,
    encoder: Encoder = None,
    convlstm: ConvLstm = None,
    mirror: Mirror = False,
    skip_bad: SkipBad = False,
    seeds: Seeds = 1,
    set_: Set = None,
    tune: Tune = None,
    resume: Resume = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn one label, or one number, for each sequence.

    \b
    Example:
      carousel fit classify vitals.csv --id patient --time at --target survived --static age --out m.safetensors
      carousel fit classify reviews.csv --text review --target label --out m.safetensors
    """
    require_place(out, (".safetensors",))
    from carousel.estimators import Classifier

    clips = choices(
        frames,
        data,
        size=size,
        grey=grey,
        crop=crop,
        rate=rate,
        every=every,
        encoder=encoder,
        convlstm=convlstm,
        mirror=mirror,
        skip_bad=skip_bad,
    )
    own, rest = split_settings(set_)
    words = words_of(
        text,
        Classifier.words_defaults,
        own,
        tokens=tokens,
        vocabulary=vocabulary,
        lowercase=lowercase,
        spelling=spelling,
        vectors=vectors,
        longest=longest,
        keep=keep,
    )
    if id is None and clips is None and text is None:
        raise CarouselError("which sequence a row belongs to is not said; name --id, or use --text or --frames.")
    usual = (
        Classifier.text_defaults
        if text is not None
        else Classifier.frame_defaults
        if clips is not None
        else Classifier.defaults
    )
    frame = read_labelled(data, text, target)
    model = Classifier(
        target,
        id=id,
        time=time,
        **sequence_columns(frame, features, static, categorical, long),
        frames=clips,
        text=text,
        words=words,
        kind=kind,  # type: ignore[arg-type]
        pooling=pooling,  # type: ignore[arg-type]
        class_weight=class_weight,  # type: ignore[arg-type]
        seeds=seeds,
        config=usual.with_settings(rest),
    )
    known = None if labels is None else read(labels, (), () if text is None else (target,))
    more = {"labels": known, "valid": read_labelled(valid, text, target)}
    seconds = run(model, frame, out, resume, data, more, search(tune, set_), valid=valid, labels=labels)
    tell(model, out, data, seconds, as_json)


def tag(
    data: Data,
    out: Out,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the label of each row.")] = None,
    event: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Warn of this: a column that is 1 while an event lasts, else 0."),
    ] = None,
    ahead: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="How long before an event to warn, as 6h, 30min, 2d, or a number."),
    ] = None,
    id: Id = None,
    time: Time = None,
    features: Features = None,
    static: Static = None,
    categorical: Categorical = None,
    long: Long = None,
    kind: Kind = "label",
    cost: Annotated[
        float | None, typer.Option(metavar="COST", help="Of a row not warned of, in false alarms: sets the threshold.")
    ] = None,
    precision: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of alarms that shall be right: sets the threshold.")
    ] = None,
    class_weight: ClassWeight = None,
    valid: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Sequences to validate on, instead of a part of DATA.")
    ] = None,
    until: Until = None,
    text: TextColumn = None,
    tokens: TokenKind = None,
    vocabulary: VocabularySize = None,
    lowercase: Lowercase = False,
    spelling: Spelling = None,
    vectors: Vectors = None,
    intent: Intent = None,
    crf: Crf = False,
    frames: FramesColumn = None,
    size: Size = None,
    grey: Grey = False,
    crop: Crop = None,
    rate: Rate = None,
    every: Every = None,
    encoder: Encoder = None,
    convlstm: ConvLstm = None,
    mirror: Mirror = False,
    skip_bad: SkipBad = False,
    seeds: Seeds = 1,
    set_: Set = None,
    tune: Tune = None,
    resume: Resume = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn a label or a number for each row, or to warn of an event ahead.

    \b
    Example:
      carousel fit tag vitals.csv --id patient --time at --event septic --ahead 6h --cost 10 --out m.safetensors
      carousel fit tag news.conll --text word --id sentence --target tag --crf --out m.safetensors
    """
    require_place(out, (".safetensors",))
    from carousel.estimators import Tagger

    clips = choices(
        frames,
        data,
        size=size,
        grey=grey,
        crop=crop,
        rate=rate,
        every=every,
        encoder=encoder,
        convlstm=convlstm,
        mirror=mirror,
        skip_bad=skip_bad,
    )
    own, rest = split_settings(set_)
    words = words_of(
        text,
        Tagger.words_defaults,
        own,
        tokens=tokens,
        vocabulary=vocabulary,
        lowercase=lowercase,
        spelling=spelling,
        vectors=vectors,
    )
    if text is None and (intent is not None or crf):
        raise CarouselError("--intent and --crf are about words of texts; name their column with --text.")
    usual = Tagger.defaults if event is None else Tagger.warning_defaults
    usual = Tagger.text_defaults if text is not None else Tagger.frame_defaults if clips is not None else usual
    frame = read_labelled(data, text, target, intent)
    model = Tagger(
        target,
        event=event,
        ahead=ahead,
        id=id,
        time=time,
        **sequence_columns(frame, features, static, categorical, long),
        frames=clips,
        text=text,
        words=words,
        intent=intent,
        crf=crf,
        kind=kind,  # type: ignore[arg-type]
        cost=cost,
        precision=precision,
        class_weight=class_weight,  # type: ignore[arg-type]
        seeds=seeds,
        config=usual.with_settings(rest),
    )
    if target is None and event is None:
        raise CarouselError("what to learn is not said; name --target, or --event with --ahead.")
    frame = rows_until(frame, time, until, data)
    more = {"valid": read_labelled(valid, text, target, intent)}
    seconds = run(model, frame, out, resume, data, more, search(tune, set_), valid=valid)
    tell(model, out, data, seconds, as_json, until)
