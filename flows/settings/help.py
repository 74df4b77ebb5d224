"""Help lines of options and flow parameters that are no settings of their own."""

HELP = {
    "workspace": "folder or address (s3://...) of runs, stores, results and figures",
    "preset": "a published network with its recipe of 350 epochs of CIFAR-10: d1-v2, plain-18,"
    " tiny-10, width-64",
    "depths": "depths of the networks: numbers and ranges, such as 1,2 or 1-4",
    "seeds": "seeds of the networks: numbers and ranges, such as 0,1 or 0-9",
    "checkpoint": "init, epoch-0005, …, final, or all",
    "label": "compare the examples of this class alone",
    "label_or_each": "compare the examples of this class alone, or of each class, a matrix each",
    "cluster": "where tasks run: threads, local[:WORKERS] on a core each, gpu, tls:// or"
    " tcp://HOST:PORT of a scheduler, or MODULE:FUNCTION that starts one",
    "pattern": "RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...], as in *@final:conv[1-9];"
    " TAP is all that follows the colon, and may be a tap's name, whatever characters it has",
    "networks": "checkpoints that are stored: RUN@CHECKPOINT with *, ? and [...]; what is stored of"
    " others is renewed, too, where their checkpoint has become another one",
    "matrices": "all-pairs matrices that are kept up to date, besides all results that are there:"
    " patterns as in *@final:conv[1-9]",
    "share": "of what is stored, verified in one night; above 0 and at most 1",
    "repair": "compute again what is found damaged, where its checkpoint still exists",
    "busy": "while another nightly run is at work: step-aside, or wait",
    "each_label": "compare the examples of every class, a matrix each",
    "keep": "activations, grams, or activations,grams",
    "train_set": "stored sample set that is trained on [default: the largest of the split train]",
    "test_set": "stored sample set that is classified [default: the largest of the split test]",
    "penalties": "factors of the l2 term, of which one is chosen for each tap by a fifth of the"
    " training examples [default: 0.1 to 1e-6, two a decade]",
    "errors": "show standard errors (jackknife over minibatches)",
    "convergence": "draw values against the number of minibatches",
    "exclude": "taps that are left out, separated by commas",
    "json_path": "file to write the numbers to",
}
"""What each option is that is no setting of a run, an extraction or a comparison."""
