"""Whether a reward model knows enough to align anything with it."""

from trillium.errors import ConfigError

from trillium_rec.reward.config import RewardConfig
from trillium_rec.reward.quality import RewardQuality


def check_reward(config: RewardConfig, quality: RewardQuality) -> None:
    """Raise ConfigError when the model hardly beats popularity and position on unseen users.

    What a table of counts knows, a policy learns from the log; alignment would amplify it.
    """
    if quality.auc_gain < config.min_auc_gain:
        raise ConfigError(
            f"reward: on {quality.n_lists} lists of unseen users its AUC is {quality.auc_gain:+.3f}"
            f" above popularity and position (at least {config.min_auc_gain:+.3f} is asked for); "
            "give more lists or other heads, lower reward.min_auc_gain, or leave align out"
        )
