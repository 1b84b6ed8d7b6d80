"""The numbers that tables show, each with its heading, its digits and what it means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A number to show: its key in the metrics, its heading, its digits, whether with a sign, and what it means."""

    key: str
    heading: str
    digits: int = 2
    sign: str = ""
    meaning: str = ""


GOLD = Column("gold", "true quality", 3, "", "0 to 1, by the source's rule; nothing is trained on it")
GAIN = Column("gold_gain", "gain over SFT", 3, "+", "in true quality, paired by prompt")
JUDGE = Column("judge", "judge", 2, "", "score of a second reward model that nothing learns from, in its deviations")
REWARD = Column("reward", "reward", 2, "", "of the reward model that PPO learns from, in its standard deviations")
KL = Column("kl", "KL to SFT", 2, "", "nats per response at the sampling temperature (greedy: at 1)")
LENGTH = Column("length", "tokens", 1, "", "of a response, its end included")
EOS = Column("eos_rate", "ended", 3, "", "share of the responses that end by themselves")
DISTINCT_2 = Column("distinct_2", "distinct-2", 3, "", "distinct word pairs over all word pairs")
BLEU = Column("bleu", "BLEU", 1, "", "of all responses against the chosen answers, 0 to 100")
ROUGE_L = Column("rougeL", "ROUGE-L", 3, "", "F1 of the longest common subsequence")
AT_EQUAL_LENGTH = (
    "were both answers of each pair equally long (AlpacaEval 2's regression); where it is clearly lower, length won; "
    "– where length alone tells the wins from the losses"
)
QUALITY = [
    GOLD,
    GAIN,
    JUDGE,
    Column("judge_win_rate", "judge: wins over SFT", 3, "", "share of the SFT model's samples beaten; ties half"),
    Column("judge_lc_win_rate", "at equal length", 3, "", f"the judge's wins over SFT, {AT_EQUAL_LENGTH}"),
    Column("judge_win_rate_chosen", "judge: wins over chosen", 3, "", "share of the dataset's best answers beaten"),
    REWARD,
    Column("win_rate", "reward: wins over SFT", 3, "", "the same by the reward model"),
    Column("win_rate_chosen", "reward: wins over chosen", 3, "", "the same by the reward model"),
    KL,
]
TEXT = [
    LENGTH,
    EOS,
    Column("repetition", "repetition", 3, "", "share of a response's word runs that it has said before"),
    Column("distinct_1", "distinct-1", 3, "", "distinct words over all words"),
    DISTINCT_2,
    Column("self_bleu", "self-BLEU", 1, "", "BLEU against the policy's other responses; lower: more diverse"),
    BLEU,
    Column("sentence_bleu", "sentence BLEU", 1, "", "mean of each response's BLEU"),
    Column("rouge1", "ROUGE-1", 3, "", "F1 of words shared with the chosen answer"),
    Column("rouge2", "ROUGE-2", 3, "", "F1 of word pairs"),
    ROUGE_L,
]
PERPLEXITY = Column("perplexity", "perplexity", 3, "", "of the dataset's chosen answers")
DATASET_COLUMNS = [
    PERPLEXITY,
    Column("preference_accuracy", "preference accuracy", 3, "", "pairs that log(policy / SFT) orders as their scores"),
    Column("pairs", "pairs", 0, "", "with different scores"),
]
TERMINAL = [GOLD, GAIN, JUDGE, REWARD, KL, LENGTH, EOS]
TERMINAL_TEXT = [KL, LENGTH, EOS, DISTINCT_2, BLEU, ROUGE_L]  # where no answer is scored
DIFFERENCES = [
    Column("gold", "true quality", 3, "+"),
    Column("judge", "judge", 3, "+"),
    Column("reward", "reward", 3, "+"),
    Column("kl", "KL to SFT", 2, "+"),
    Column("length", "tokens", 2, "+"),
    Column(
        "judge_win_rate", "judge: wins", 3, "", "share of the other's answers beaten, as the judge scores; ties half"
    ),
    Column("judge_lc_win_rate", "at equal length", 3, "", f"the judge's wins, {AT_EQUAL_LENGTH}"),
]
OBJECTIVE = Column("objective", "objective", 3, "", "reward less kl_coef times the KL, which PPO maximises")
SHARE = Column("objective_share", "share of the gain", 2, "", "of what is attainable, counted from SFT")
SCORE = Column("score", "reward", 2, "", "what PPO learns from, after scaling, clipping and penalties")
ESS = Column("ess", "effective answers", 0, "", "how many of the SFT model's answers to a prompt the estimate rests on")
