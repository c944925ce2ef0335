"""Stop words by language; case-folded and without accents, as the analyzer sees them."""

from __future__ import annotations

# Function words only: words that carry meaning somewhere (numbers, nouns, most adverbs) stay searchable.
_LISTS = {
    "en": """
        a about above across after again against all also am among an and any are as at be because been before being
        below between both but by can cannot could did do does doing don down during each et few for from further had
        has have having he hence her here hers herself him himself his how however i if in into is it its itself just
        ll may me might more most must my myself no nor not now of off on once only or other ought our ours ourselves
        out over own re s same shall she should so some such t than that the their theirs them themselves then there
        therefore these they this those through thus to too under until up upon us ve very was we were what when where
        whether which while who whom whose why will with within without would yet you your yours yourself yourselves
    """,
    "de": """
        aber alle allem allen aller alles als also am an ander andere anderem anderen anderer anderes auch auf aus bei
        beim bin bis bist da damit dann das dass dein deine dem den denn der deren des dessen dich die dies diese diesem
        diesen dieser dieses dir doch dort du durch ein eine einem einen einer eines er es etwas euch euer eure fur
        gegen habe haben hat hatte hatten hier hin hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer ihres im in ins
        ist jede jedem jeden jeder jedes jene jener jetzt kann kein keine keinem keinen keiner konnen konnte man manche
        mein meine mich mir mit muss musste nach nicht nichts noch nun nur ob oder ohne sehr sein seine seinem seinen
        seiner seit sich sie sind so solche soll sollte sondern sonst uber um und uns unser unsere unter viel vom von
        vor wahrend war waren warum was weil welche welchem welchen welcher welches wenn werde werden wie wieder will
        wir wird wirst wo wollen worden wurde wurden zu zum zur zwischen
    """,
    "fr": """
        a ai alors as au aucun aussi autre aux avaient avait avec avoir ayant c car ce ceci cela celle celles celui ces
        cet cette ceux chez ci comme d dans de des donc dont du elle elles en encore entre es est et etaient etait etant
        ete etes etre eu eux fait faut furent fut ici il ils j je l la le les leur leurs lors lui m ma mais me meme mes
        moi mon n ne ni nos notre nous on ont or ou par parce pas peu peut plus pour pourquoi pu qu quand que quel
        quelle quelles quels qui s sa sans se sera ses si sinon son sont sous sur t ta tandis te tes toi ton tous tout
        toute toutes tres tu un une vers voici voila vos votre vous y
    """,
    "es": """
        a al algo algunas algunos ante antes aquel aquella como con contra cual cuando de del desde donde dos durante e
        el ella ellas ellos en entre era eran es esa esas ese eso esos esta estaba estado estan estar estas este esto
        estos fue fueron ha habia han hasta hay he la las le les lo los mas me mi mis mucho muchos muy nada ni no nos
        nosotros nuestra nuestro o os otra otras otro otros para pero poco por porque que quien quienes se sea ser si
        sin sobre son su sus tambien tanto te tiene tienen todo todos tu tus un una unas uno unos y ya yo
    """,
    "it": """
        a abbia abbiamo ad agli ai al alla alle allo anche avere aveva c che chi ci coi col come con contro cui da dagli
        dai dal dalla dalle dallo degli dei del dell della delle dello di dove e ed era erano essere fa fra fu gli ha
        hanno ho i il in io l la le lei li lo loro lui ma me mi mia mie mio ne negli nei nel nella nelle nello noi non
        nostra nostro o per perche piu quale quali quando quanto quella quelle quelli quello questa queste questi questo
        se sei si sia siamo siete sono su sua sue sugli sui sul sulla sulle sullo suo suoi ti tra tu tua tuo tutti tutto
        un una uno vi voi
    """,
    "pt": """
        a ao aos aquela aquele aquilo as ate com como da das de dela dele deles depois do dos e ela elas ele eles em
        entre era eram essa essas esse esses esta estao estar estas estava este estes eu foi foram ha isso isto ja lhe
        mais mas me mesmo meu minha muito na nao nas nem no nos nossa nosso num numa o os ou para pela pelas pelo pelos
        por porque qual quando que quem se seja sem ser seu seus so sua suas tambem te tem tinha tu tua um uma voce
    """,
    "nl": """
        aan al alles als altijd andere ben bij daar dan dat de der deze die dit doch doen door dus een en er ge geen
        geweest haar had heb hebben heeft hem het hier hij hoe hun iemand iets ik in is ja je kan kon kunnen maar me
        meer men met mij mijn moet na naar niet niets nog nu of om omdat onder ons ook op over reeds te tegen toch toen
        tot u uit uw van veel voor want waren was wat werd wie wij wil worden wordt zal ze zelf zich zij zijn zo zonder
        zou
    """,
    "sv": """
        alla allt att av blev bli blir de dem den denna deras dess dessa det detta dig din dina ditt du dar da efter
        ej eller en er era ert ett fran for ha hade han hans har henne hennes hon honom hur har i icke ingen inom inte
        jag ju kan kunde man med mellan men mig min mina mitt mot mycket ni nu nar nagon nagot nagra och om oss pa
        samma sedan sig sin sina sitta sjalv skulle som sa sadan till under upp ut utan vad var vara varfor varit vem
        vi vid vilka vilken vilket ar at over
    """,
    "da": """
        af alle alt anden at blev blive bliver da de dem den denne der deres det dette dig din dine disse dog du efter
        eller en end er et for fra ham han hans har havde have hende hendes her hos hun hvad hvem hver hvis hvor i ikke
        ind ja jeg jer kan kunne man mange med meget men mig min mine mit mod ned noget nogle nu nar og ogsa om op os
        over pa selv sig sin sine sit skal skulle som sadan til ud under var vi vil ville vor vaere
    """,
    "no": """
        alle at av bare ble bli blir da de deg dei dem den denne der dere deres det dette di din disse ditt du eller en
        er et etter for fra fordi ha hadde han hans har hennes her hun hva hvem hver hvilken hvis hvor hvordan i ikke
        inn ja jeg kan kom kunne man mange med meg meget mellom men mer min mitt mot mye na nar noe noen og ogsa om opp
        oss over pa samme seg selv sin sine sitt skal skulle slik som sa til ut uten var vart ved vi vil ville vaere
        berre dykk dykkar eg ein eit eitt fra fra hennar hja honom ho hoss ikkje ingen korleis kva kvar kven kvifor me
        meir mykje no noka noko nokon nokre ogso sidan sjolv skulle somme vere verte vore vart
    """,
    "cs": """
        a aby ale ani az bez bude budem budes by byl byla byli bylo byt co coz do i ja jak jako je jeho jej jeji jejich
        jen jenz jeste ji jim jiz jsem jsi jsme jsou jste k kam kde kdo kdyz ke ktera ktere kteri ktery ma mate me mezi
        mi mit mne mu muze my na nad nam nas nasi ne nebo nebyl neni nez nic o od on ona oni ono pak po pod podle pokud
        pro proc proto protoze pred pres pri s se si sve svuj svych ta tak take takze tam te tedy ten tento teto tim to
        toho tohoto tom tomto tomu tu tuto ty tyto u uz v vam vas ve vice vsak vsech vsechno vy z za zda ze
    """,
    "pl": """
        a aby ale ani az bardzo bez bo byc by byl byla byli bylo byly ci co czy dla do gdy gdzie go i ich ile im inne ja
        jak jako je jednak jego jej jemu jest jestem jeszcze jezeli juz kiedy kto ktora ktore ktorego ktorej ktory
        ktorych ktorym ktorzy ma maja mi mial mnie moze mozna na nad nam nas nawet nia nic nich nie niego niej nim niz o
        od on ona one oni ono oraz po pod poniewaz przed przez przy sa sam se sie skad soba swoje ta tak taka takie
        takze tam te tego tej ten to tu tych tylko tym u w we wie wiec wszystko z za ze zeby
    """,
    "uk": """
        а або адже але без би був була були було бути в вас вже ви від він вона вони воно все всі втім де для до є її за
        зі і із інших їх його її й коли ледве лише ми мене мені може на навіть над нам нас наш не нею ним них ні ніж о
        однак ось от по при про під після саме себе собі та так також там те теж ти тим тих то тоді того той тому тут у
        уже хоча хто це цей ці цього цьому ця чи чим чого через що щоб щодо як яка яке які який якого якщо я з
    """,
    "el": """
        αλλα αν απο αυτα αυτεσ αυτη αυτο αυτοι αυτοσ αυτου αυτων για δε δεν εαν ειμαι ειναι εκεινη εκεινο εκεινοσ ενα
        ενασ ενω επισησ εχει εχουν η ηταν θα και κατα κι μα με μεσα μετα μη μην μια μου μπορει να ο οι ομωσ οποια οποιο
        οποιοσ οπωσ οταν οτι ουτε παρα που πριν προσ πωσ σαν σε στα στη στην στισ στο στον στουσ συ τα τη την τησ τι τισ
        το τον του τουσ των ωσ
    """,
    "fi": """
        ei eivat en eri ettei etta ha han hanen he heidan hanta ja jo joka jonka jos joita jota jotka kanssa kuin kun
        me mika mina minun mita mukaan mutta myos ne niiden niin nyt nuo ole olen olet oli olivat olla on ovat se sen
        sina sita tai tama taman tassa te tuo vain vaan voi
    """,
    "ru": """
        а без более бы был была были было быть в вам вас весь во вот все всего всех вы где да даже для до его ее если
        есть еще же за здесь и из или им их к как ко когда кто ли либо мне может мы на надо наш не него нее нет ни них
        но ну о об однако он она они оно от очень по под при с со так также такой там те тем то того тоже той только
        том ты у уже хотя чего чей чем что чтобы чье чья эта эти это этот я
    """,
    "ar": """
        اذا التي الذي الذين الي ان انا انت انه او اي بعد بعض به بها بين تلك ثم حتي ذلك علي عليه عليها عن عند
        غير في فيه فيها قبل قد كان كانت كل كما لا لكن لم لن له لها ما مع من منه منها نحن هذا هذه هم هن هناك
        هو هي و وهو وهي يا يكون
    """,
    "he": """
        אבל או אותה אותו אז אחרי אינ אל אמ אנחנו אני אצל אשר את אתה אתמ בה בו בינ גמ הוא היא היה היו היתה המ
        הנ זאת זה זו יהיה יותר יש כבר כדי כי כל כמו כנ לא לה לו לי לנו לפני מה מי עד עוד על עמ רק של שלה
        שלהמ שלו
    """,
}

STOP_WORDS: dict[str, frozenset[str]] = {language: frozenset(text.split()) for language, text in _LISTS.items()}
